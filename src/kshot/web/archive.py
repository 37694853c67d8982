"""All labels and results of a session in one zip, as `kshot segment` would write them."""

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from kshot.batch import CLASSES_FILE
from kshot.pictures import label_picture, mask_picture, tint
from kshot.segmenter import LabelMap
from kshot.web.photographs import Photograph
from kshot.web.session import Session


def write_archive(session: Session, path: Path) -> None:
    """Write masks and overlays of all photographs that have labels or a result which is not stale."""
    with session.lock:
        photographs = [one for one in session.photographs.values() if session.has_answer(one)]
        classes = session.classes
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for stem, photograph in _named(photographs):
            with session.lock:
                if not session.has_answer(photograph):
                    continue  # removed, or made stale, while the others were written
                labels, picture = session.labels(photograph), session.picture(photograph)
            kind = "mask" if len(classes) == 1 else "labels"
            _add(archive, f"{stem}_{kind}.png", answer_picture(session, labels))
            tint(picture, labels, session.colour)
            _add(archive, f"{stem}_overlay.png", picture)
        if len(classes) > 1:
            numbers = {one.name: one.value for one in classes}
            archive.writestr(CLASSES_FILE, json.dumps(numbers, indent=2) + "\n")


def answer_picture(session: Session, labels: LabelMap) -> Image.Image:
    """Draw labels as `kshot segment` does: a mask of 0 and 255, or of several classes a palette picture."""
    return mask_picture(labels > 0) if len(session.classes) == 1 else label_picture(labels, session.colour)


def _named(photographs: list[Photograph]) -> Iterator[tuple[str, Photograph]]:
    """Give each photograph a file name's stem that no other has, on any system."""
    taken: set[str] = set()
    for photograph in photographs:
        stem = "".join("_" if letter in '<>:"|?*' else letter for letter in Path(photograph.name).stem)
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        yield name, photograph


def _add(archive: zipfile.ZipFile, name: str, picture: Image.Image) -> None:
    data = BytesIO()
    picture.save(data, "PNG")
    archive.writestr(name, data.getvalue())
