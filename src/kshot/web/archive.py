"""All labels and results of a session in one zip, as `kshot segment` would write them, and annotations."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from kshot.annotations.writers import Instances, Segmented, labelme_document
from kshot.io.files import encoded
from kshot.io.overlays import label_picture, mask_picture, tint
from kshot.methods.tiling import FloatMap
from kshot.predict.outputs import CLASSES_FILE, INSTANCES_FILE
from kshot.types import LabelMap
from kshot.web.images import Photograph
from kshot.web.session import Session

LABELME_FOLDER = "labelme"
"""A LabelMe file for each photograph, to put beside it."""

DEVICES = (
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)),
)
"""No names of files in Windows, whatever comes after a dot."""


def write_archive(session: Session, path: Path) -> None:
    """Write what there is of all photographs that have labels, or a result that is not stale."""
    with session.lock:
        photographs = [one for one in session.photographs.values() if session.has_answer(one)]
        classes = session.classes
    instances = Instances([one.name for one in classes])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, photograph in _named(photographs):
            with session.lock:
                if not session.has_answer(photograph):
                    continue  # removed, or made stale, while the others were written
                labels, picture = session.labels(photograph), session.picture(photograph)
                segmented = _segmented(session, photograph, name, labels)
            stem = PurePosixPath(name).stem
            kind = "mask" if len(classes) == 1 else "labels"
            archive.writestr(f"{stem}_{kind}.png", encoded(answer_picture(session, labels), "PNG"))
            tint(picture, labels, session.colour)
            archive.writestr(f"{stem}_overlay.png", encoded(picture, "PNG"))
            _add_json(archive, f"{LABELME_FOLDER}/{stem}.json", labelme_document(segmented))
            instances.add(segmented)
        _add_json(archive, INSTANCES_FILE, instances.document())
        if len(classes) > 1:
            _add_json(archive, CLASSES_FILE, {one.name: one.value for one in classes})


def answer_picture(session: Session, labels: LabelMap) -> Image.Image:
    """Draw labels as `kshot segment` does: a mask of 0 and 255, or of several classes a palette picture."""
    return mask_picture(labels > 0) if len(session.classes) == 1 else label_picture(labels, session.colour)


def _segmented(session: Session, photograph: Photograph, name: str, labels: LabelMap) -> Segmented:
    """Give each class's mask and probability; what somebody drew is certain."""
    masks = {one.name: labels == one.value for one in session.classes}
    probabilities: dict[str, FloatMap] = {name: mask.astype(np.float32) for name, mask in masks.items()}
    if not photograph.is_drawn and photograph.result is not None:
        for one in session.classes:
            if one.value in photograph.result.values:
                levels: FloatMap = np.asarray(session.step(photograph, "probability", one.value), np.float32)
                probabilities[one.name] = levels / np.float32(255)
    return Segmented(name, masks, probabilities)


def _named(photographs: list[Photograph]) -> Iterator[tuple[str, Photograph]]:
    """Give each photograph a file name whose stem no other has, on any system."""
    taken: set[str] = set()
    for photograph in photographs:
        text = "".join("_" if letter in '<>:"|?*' else letter for letter in photograph.name)
        is_device = text.partition(".")[0].rstrip().upper() in DEVICES
        name = PurePosixPath(f"_{text}" if is_device else text)
        stem, number = name.stem, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{name.stem}_{number}"
        taken.add(stem.lower())
        yield stem + name.suffix, photograph


def _add_json(archive: zipfile.ZipFile, name: str, document: dict[str, Any]) -> None:
    archive.writestr(name, json.dumps(document, indent=2) + "\n")
