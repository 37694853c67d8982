"""Images with difficult file names, through the command and back."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.robustness.rows import CannotRun, Outcome, Row
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
    "no text \udcff",  # the byte 0xff, which is not valid UTF-8
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


def round_trip(folder: Path) -> Outcome:
    """Segment a folder of images with the command; find the mask of each by its name."""
    if sys.platform != "linux":
        raise CannotRun("not all of these names are valid on this system")
    images, out = folder / "images", folder / "out"
    images.mkdir()
    image, mask = scene()
    image.save(folder / "support.png")
    Image.fromarray(mask).save(folder / "mask.png")
    segmenter = Segmenter.from_pretrained("prototype", image_size=IMAGE_SIZE).fit(image, mask)
    expected = {}
    for index, name in enumerate(NAMES):
        query, _ = scene(left=5 + 2 * index, top=40 - index)
        path = images / f"{name}.png"
        query.save(path)
        expected[path] = segmenter.predict(query).mask
    inputs = ["--support", folder / "support.png", folder / "mask.png", images]
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
    figure = f"{found}/{len(NAMES)} have a mask and a row in confidence.csv"
    if done.returncode:
        figure += f"; exit status {done.returncode}"
    return Outcome(figure, found == len(NAMES) and done.returncode == 0)


def _listed(table: Path) -> set[Path]:
    """Return the images listed in the confidence table."""
    if not table.exists():
        return set()
    with table.open(newline="", errors="surrogateescape") as file:
        return {Path(row["image"]) for row in csv.DictReader(file)}


def _is_mask(path: Path, expected: np.ndarray) -> bool:
    if not path.exists():
        return False
    with Image.open(path) as found:
        return np.array_equal(np.asarray(found) == 255, expected)


ROWS = (Row("names", "names with spaces, unicode, newlines, 200 characters", "30/30 round trip", round_trip),)
