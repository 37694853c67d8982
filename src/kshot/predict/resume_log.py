"""Record in a results folder which images are done and with which settings, so that a stopped run goes on.

Result files are written atomically, and an image's line is added to the log after its files. So a run that is
stopped at any moment loses at most the image in progress.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from kshot import __version__
from kshot.errors import KshotError
from kshot.io.files import append_text, encode_image, read_json, write_text
from kshot.io.folders import SETTINGS_FILE
from kshot.io.overlays import SheetRow
from kshot.io.raster_options import RasterOptions

if TYPE_CHECKING:
    from kshot.predict.support_set import SupportSet
    from kshot.segmenter import Segmenter

RESUME_LOG_FILE = "done.jsonl"
"""One line for each finished image, in the order in which they were finished."""

MAX_SHOWN = 40
"""Characters of a setting in an error message."""


def settings_of(
    segmenter: "Segmenter", support_set: "SupportSet", raster_options: RasterOptions, **others: Any
) -> dict[str, Any]:
    """Return what the results depend on: version, model, support set, and the command's other options.

    The device and the list of images are not included, because they must not change a result.
    """
    from kshot.models.imagenet_weights import weights_sha256  # imports torch

    return {
        "kshot": __version__,
        "classes": list(support_set.classes),
        "class_values": list(segmenter.class_values.values()),
        **segmenter.config.model_dump(mode="json"),
        "weights_sha256": weights_sha256(segmenter.method),
        "supports_sha256": support_set.sha256(),
        "tile": segmenter.tile,
        "long_side": segmenter.long_side,
        "bands": raster_options.bands,
        "plane": raster_options.plane,
        "map_tile": raster_options.tile,
        **others,
    }


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write settings into a results folder, or compare them with those that are there.

    Raises KshotError with the first that differs, because the results would be mixed.
    """
    path, text = folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n"
    if not path.exists():
        write_text(text, path)
    new = json.loads(text)
    stored = read_json(path)  # even if just written: another run may have written at the same moment
    if not isinstance(stored, dict):
        raise KshotError(f"{path} holds no settings. Choose another --out, or delete that folder.")
    if differing := [key for key in (*new, *stored) if new.get(key) != stored.get(key)]:
        key = differing[0]
        raise KshotError(
            f"{folder} holds an earlier run's results with other settings: {key} was "
            f"{_shorten(stored.get(key))} and is now {_shorten(new.get(key))}. Choose another --out, or "
            "delete that folder."
        )


@dataclass(frozen=True)
class ImageRecord:
    """A finished image.

    image: as the command named it. results: name of its results, relative to the folder. state: `fingerprint`
    of the image when it was read. confidence: of the result, 0 to 1. entries: its parts of the run's files,
    by format. row: captions and images (PNG in base64) of its row on the contact sheet, if it has one.
    """

    image: str
    results: str
    state: list[int]
    confidence: float
    entries: dict[str, Any] = field(default_factory=dict)
    row: list[list[str]] | None = None


@dataclass(frozen=True)
class ResumeLog:
    """A file of records, one a line."""

    path: Path

    def read(self) -> dict[str, ImageRecord]:
        """Return the records by `results`; the last one of each name.

        Invalid lines are skipped, because a killed run may leave an incomplete last line.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        if content and not content.endswith(b"\n"):
            append_text("\n", self.path)
        records = {}
        for line in content.splitlines():
            try:
                record = ImageRecord(**json.loads(line))
            except (ValueError, TypeError):
                continue
            records[record.results] = record
        return records

    def add(self, record: ImageRecord) -> None:
        """Append the record of an image whose result files are written."""
        append_text(json.dumps(asdict(record)) + "\n", self.path)


def fingerprint(path: Path) -> list[int]:
    """Return the size in bytes and the modification time in nanoseconds, to detect a changed image.

    For a folder with the slices of a volume: the sum of the sizes and the latest time.
    """
    files = path.iterdir() if path.is_dir() else [path]
    found = [file.stat() for file in files]
    return [sum(one.st_size for one in found), max(one.st_mtime_ns for one in found)]


def pack_row(row: SheetRow) -> list[list[str]]:
    """Return a row of the contact sheet as text."""
    return [[caption, base64.b64encode(encode_image(image, "PNG")).decode("ascii")] for caption, image in row]


def unpack_row(packed: list[list[str]]) -> SheetRow:
    """Return the row that `pack_row` packed."""
    return [(caption, Image.open(BytesIO(base64.b64decode(content)))) for caption, content in packed]


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
