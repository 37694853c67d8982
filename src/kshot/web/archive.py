"""Write all labels and results of a session to one zip archive, in the formats of `kshot segment`."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from kshot.annotations.writers import CocoInstances, SegmentedImage, labelme_document
from kshot.io.files import encode_image
from kshot.io.overlays import draw_overlay, label_image, mask_image
from kshot.predict.outputs import CLASSES_FILE, INSTANCES_FILE
from kshot.types import FloatMap, LabelMap
from kshot.web.images import SessionImage
from kshot.web.session import Session

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
    instances = CocoInstances([one.name for one in classes])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, image in _unique_names(images):
            with session.lock:
                if not session.has_current_labels(image):
                    continue  # removed, or stale, since the list was made
                labels, pixels = session.labels(image), session.pixels(image)
                segmented = _segmented(session, image, name, labels)
            stem = PurePosixPath(name).stem
            kind = "mask" if len(classes) == 1 else "labels"
            archive.writestr(f"{stem}_{kind}.png", encode_image(render_labels(session, labels), "PNG"))
            draw_overlay(pixels, labels, session.colour)
            archive.writestr(f"{stem}_overlay.png", encode_image(pixels, "PNG"))
            _add_json(archive, f"{LABELME_FOLDER}/{stem}.json", labelme_document(segmented))
            instances.add(segmented)
        _add_json(archive, INSTANCES_FILE, instances.document())
        if len(classes) > 1:
            _add_json(archive, CLASSES_FILE, {one.name: one.value for one in classes})


def render_labels(session: Session, labels: LabelMap) -> Image.Image:
    """Render labels as `kshot segment` does: one class as a 0/255 mask, several as a palette image."""
    return mask_image(labels > 0) if len(session.classes) == 1 else label_image(labels, session.colour)


def _segmented(session: Session, image: SessionImage, name: str, labels: LabelMap) -> SegmentedImage:
    """Return the mask and probability of each class; the user's own labels have probability 1."""
    masks = {one.name: labels == one.value for one in session.classes}
    probabilities: dict[str, FloatMap] = {name: mask.astype(np.float32) for name, mask in masks.items()}
    if not image.is_labelled and image.result is not None:
        for one in session.classes:
            if one.value in image.result.class_values:
                levels: FloatMap = np.asarray(
                    session.probability_map(image, "probability", one.value), np.float32
                )
                probabilities[one.name] = levels / np.float32(255)
    return SegmentedImage(name, masks, probabilities)


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
