"""What a folder of results holds: answers of which settings, and to which images; so that a run can go on.

Results are written whole or not at all, and after those of an image one line is added to the journal. A run
that was stopped at any moment thus loses at most the image that it was at.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from kshot import __version__
from kshot.errors import KshotError
from kshot.io.files import append_text, encode_image, read_json, write_text
from kshot.io.overlays import SheetRow
from kshot.io.raster_options import RasterOptions
from kshot.models.imagenet_weights import weights_sha256
from kshot.predict.support_set import Supports
from kshot.segmenter import Segmenter

SETTINGS_FILE = "settings.json"
"""What the answers in a folder depend on."""

JOURNAL_FILE = "done.jsonl"
"""One line for each image that is done, in the order in which they were."""

SHOWN = 40
"""Characters of a setting in an error's text."""


def settings_of(
    segmenter: Segmenter, supports: Supports, view: RasterOptions, **others: Any
) -> dict[str, Any]:
    """Collect what answers depend on: the version, the model, the supports, and the command's other options.

    Not the device, nor which images there are: neither is meant to change an answer.
    """
    return {
        "kshot": __version__,
        "classes": list(supports.classes),
        **segmenter.config.model_dump(mode="json"),
        "weights_sha256": weights_sha256(segmenter.method),
        "supports_sha256": supports.sha256(),
        "tile": segmenter.tile,
        "long_side": segmenter.long_side,
        "bands": view.bands,
        "plane": view.plane,
        "map_tile": view.tile,
        **others,
    }


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write settings into a folder of results, or compare them with those that are there.

    Raises KshotError with the first that differs: its results would be mixed with ours.
    """
    path, text = folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n"
    if not path.exists():
        write_text(text, path)
    ours = json.loads(text)
    theirs = read_json(path)  # also if we wrote it: another run may have begun at the same moment
    if not isinstance(theirs, dict):
        raise KshotError(f"{path} holds no settings. Choose another --out, or delete that folder.")
    if other := [key for key in (*ours, *theirs) if ours.get(key) != theirs.get(key)]:
        there, now = _short(theirs.get(other[0])), _short(ours.get(other[0]))
        raise KshotError(
            f"{folder} holds an earlier run's results of other settings: {other[0]} was {there} and is {now} "
            "now. Choose another --out, or delete that folder."
        )


@dataclass(frozen=True)
class Record:
    """An image that is done.

    image: as the command named it. results: its results' name, below the folder. state: `state_of` the image
    when it was read. confidence: of the answer. coco: its part of a COCO document, if one is asked for. row:
    captions and pictures (PNG in base64) of its row on the contact sheet, if it is among the first.
    """

    image: str
    results: str
    state: list[int]
    confidence: float
    coco: dict[str, Any] | None = None
    row: list[list[str]] | None = None


@dataclass(frozen=True)
class Journal:
    """A file of records."""

    path: Path

    def read(self) -> dict[str, Record]:
        """Give the records by their results' name; of several with one name, the last.

        What is no record is passed over: the last line of a killed run may be half a line.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        if content and not content.endswith(b"\n"):
            append_text("\n", self.path)
        records = {}
        for line in content.splitlines():
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError):
                continue
            records[record.results] = record
        return records

    def add(self, record: Record) -> None:
        """Add a record. Its results must have been written before."""
        append_text(json.dumps(asdict(record)) + "\n", self.path)


def state_of(image: Path) -> list[int]:
    """Give what changes when an image does: its size in bytes, and when it was written, in nanoseconds.

    Of a folder with the slices of a scan: the sum of sizes, and the latest time.
    """
    files = image.iterdir() if image.is_dir() else [image]
    found = [file.stat() for file in files]
    return [sum(one.st_size for one in found), max(one.st_mtime_ns for one in found)]


def pack_row(row: SheetRow) -> list[list[str]]:
    """Turn a row of a contact sheet into text."""
    return [
        [caption, base64.b64encode(encode_image(picture, "PNG")).decode("ascii")] for caption, picture in row
    ]


def unpack_row(packed: list[list[str]]) -> SheetRow:
    """Turn the text back into the same row."""
    return [(caption, Image.open(BytesIO(base64.b64decode(content)))) for caption, content in packed]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
