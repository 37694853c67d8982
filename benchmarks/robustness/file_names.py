"""Photographs with awkward names, through the command and back."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.robustness.rows import CannotRun, Found, Row
from benchmarks.robustness.samples import scene
from kshot.segmenter import Segmenter

IMAGE_SIZE = 97

NAMES = (
    "with spaces",
    " a space before",
    "a space after ",
    "two\nlines",
    "a\ttab",
    "a\rreturn",
    "\x1b[31mred",
    "l" * 200,
    "ü" * 100,
    "zwölf",
    "zwo\N{COMBINING DIAERESIS}lf",
    "日本語",
    "العربية",
    "emoji 😀",
    "right\N{RIGHT-TO-LEFT OVERRIDE}left",
    "no text \udcff",  # the byte ff, as Python shows it
    "-dash",
    "--out",
    ".hidden",
    "several.dots.in.it",
    "a.png",
    "quote's",
    'quote"s',
    "back\\slash",
    "a,b;c",
    "$HOME",
    "`id`",
    "100%s",
    "[bold]red[-bold]",
    "*?",
)


def round_trip(folder: Path) -> Found:
    """Segment a folder of photographs with the command; find each one's own mask by its name."""
    if sys.platform != "linux":
        raise CannotRun("not all of these names are allowed here")
    photographs, out = folder / "photographs", folder / "out"
    photographs.mkdir()
    picture, mask = scene()
    picture.save(folder / "support.png")
    Image.fromarray(mask).save(folder / "mask.png")
    segmenter = Segmenter.from_pretrained("prototype", image_size=IMAGE_SIZE).fit(picture, mask)
    expected = {}
    for index, name in enumerate(NAMES):
        query, _ = scene(left=5 + 2 * index, top=40 - index)
        path = photographs / f"{name}.png"
        query.save(path)
        expected[path] = segmenter.predict(query)
    inputs = ["--support", folder / "support.png", folder / "mask.png", photographs]
    code = "from kshot.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "segment", *inputs, "--out", out, "--image-size", str(IMAGE_SIZE)],
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},  # as in most terminals
        capture_output=True,
    )
    listed = _listed(out / "confidence.csv")
    found = sum(
        path in listed and _is_mask(out / f"{path.stem}_mask.png", mask) for path, mask in expected.items()
    )
    figure = f"{found}/{len(NAMES)} have their own mask and line"
    if done.returncode:
        figure += f"; exit status {done.returncode}"
    return Found(figure, found == len(NAMES) and done.returncode == 0)


def _listed(table: Path) -> set[Path]:
    """Name the photographs that the table of confidences lists."""
    if not table.exists():
        return set()
    with table.open(newline="", errors="surrogateescape") as file:
        return {Path(row["image"]) for row in csv.DictReader(file)}


def _is_mask(path: Path, expected: np.ndarray) -> bool:
    if not path.exists():
        return False
    with Image.open(path) as picture:
        return np.array_equal(np.asarray(picture) == 255, expected)


ROWS = (Row("names", "names with spaces, unicode, newlines, 200 characters", "30/30 round trip", round_trip),)
