"""Write all labels and results of a session to one zip archive, in the formats of `kshot segment`."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from kshot.annotations.writers.coco import assemble_coco, coco_entry
from kshot.annotations.writers.labelme import labelme_document
from kshot.io.files import encode_image
from kshot.io.overlays import draw_overlay, label_image, mask_image
from kshot.predict.outputs import CLASSES_FILE
from kshot.results import SegmentationResult
from kshot.types import LabelMap
from kshot.web.images import SessionImage
from kshot.web.session import Session

INSTANCES_FILE = "instances.json"
"""All labels and results in COCO's format, in the archive."""

LABELME_FOLDER = "labelme"
"""Folder of the archive with one LabelMe file for each image."""

WINDOWS_DEVICES = (
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)),
)
"""Names that Windows reserves, with any suffix."""


def write_archive(session: Session, path: Path) -> None:
    """Write all images that have the user's labels or a result that is not stale."""
    with session.lock:
        images = [one for one in session.images.values() if session.has_current_labels(one)]
        classes = session.classes
    entries = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, image in _unique_names(images):
            with session.lock:
                if not session.has_current_labels(image):
                    continue  # removed, or stale, since the list was made
                labels, pixels = session.labels(image), session.pixels(image)
                result = _result(session, image, labels)
            stem = PurePosixPath(name).stem
            kind = "mask" if len(classes) == 1 else "labels"
            archive.writestr(f"{stem}_{kind}.png", encode_image(render_labels(session, labels), "PNG"))
            draw_overlay(pixels, labels, session.colour)
            archive.writestr(f"{stem}_overlay.png", encode_image(pixels, "PNG"))
            instances = result.instances()
            _add_json(archive, f"{LABELME_FOLDER}/{stem}.json", labelme_document(name, result, instances))
            entries.append(coco_entry(name, result, instances))
        categories = {one.name: one.value for one in classes}
        _add_json(archive, INSTANCES_FILE, assemble_coco(entries, categories))
        if len(classes) > 1:
            _add_json(archive, CLASSES_FILE, categories)


def render_labels(session: Session, labels: LabelMap) -> Image.Image:
    """Render labels as `kshot segment` does: one class as a 0/255 mask, several as a palette image."""
    return mask_image(labels > 0) if len(session.classes) == 1 else label_image(labels, session.colour)


def _result(session: Session, image: SessionImage, labels: LabelMap) -> SegmentationResult:
    """Return labels as a result; the user's own have probability 1."""
    values = tuple(one.value for one in session.classes)
    probabilities = np.stack([labels == value for value in values]).astype(np.float32)
    if not image.is_labelled and image.result is not None:
        for place, value in enumerate(values):
            if value in image.result.class_values:
                levels = np.asarray(session.probability_map(image, "probability", value), np.float32)
                probabilities[place] = levels / np.float32(255)
    names = tuple(one.name for one in session.classes)
    return SegmentationResult(labels, probabilities, names, class_values=values)


def _unique_names(images: list[SessionImage]) -> Iterator[tuple[str, SessionImage]]:
    """Yield each image with a file name that has a unique stem and is valid on every system."""
    taken: set[str] = set()
    for image in images:
        text = "".join("_" if letter in '<>:"|?*' else letter for letter in image.name)
        is_device = text.partition(".")[0].rstrip().upper() in WINDOWS_DEVICES
        name = PurePosixPath(f"_{text}" if is_device else text)
        stem, number = name.stem, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{name.stem}_{number}"
        taken.add(stem.lower())
        yield stem + name.suffix, image


def _add_json(archive: zipfile.ZipFile, name: str, document: dict[str, Any]) -> None:
    archive.writestr(name, json.dumps(document, indent=2) + "\n")
