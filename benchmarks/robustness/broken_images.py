"""Broken image files: empty, text, wrong header, truncated, flipped bits."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import features

from benchmarks.robustness.isolated import Crashed, run_isolated
from benchmarks.robustness.rows import Outcome, Row
from benchmarks.robustness.samples import cat_image
from kshot.errors import KshotError
from kshot.io.images import read_image

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {}),
    "JPEG": ("JPEG", {}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "WebP": ("WEBP", {}),
    "WebP, lossless": ("WEBP", {"lossless": True}),
    "GIF": ("GIF", {}),
    "BMP": ("BMP", {}),
    "AVIF": ("AVIF", {}),
}
DAMAGES = ("empty", "text", *["wrong header"] * 3, *["truncated"] * 8, *["flipped bits"] * 7)
"""Kinds of damage, in the proportion in which they are tested."""

SCANS = re.compile(rb"\xff\xda(?:[^\xff]|\xff[\x00\xd0-\xd7])*", flags=re.DOTALL)
"""The pixel data of a JPEG: from each start of scan to the next marker."""

PADDING = b"\x55\xaa" * 32


def broken_files(folder: Path, count: int = 500) -> Outcome:
    """Read damaged files of all formats; bits are flipped only in PNG, which has checksums."""
    formats = list(_formats())
    cases = [(formats[n % len(formats)], DAMAGES[n // len(formats) % len(DAMAGES)]) for n in range(count)]
    cases = [("PNG" if damage == "flipped bits" else name, damage) for name, damage in cases]
    return _outcome(cases, folder)


def flipped_bits(folder: Path, count: int = 500) -> Outcome:
    """Read files with flipped bits in formats without checksums of their pixels."""
    formats = [name for name in _formats() if name != "PNG"]
    return _outcome([(formats[n % len(formats)], "flipped bits") for n in range(count)], folder)


def _outcome(cases: list[tuple[str, str]], folder: Path) -> Outcome:
    try:
        counts = run_isolated(read_all, cases, folder)
    except Crashed as error:
        return Outcome(f"{len(cases)} files: {error}", False)
    crashes = sum(number for what, number in counts.items() if what.startswith("crash"))
    figure = (
        f"{len(cases)} files: {crashes} crashes, {counts['partly']} partly decoded accepted; "
        f"{counts['refused']} refused, {counts['intact']} read correctly"
    )
    if counts["damaged"]:
        figure += f", {counts['damaged']} decoded to the end with damaged pixels"
    return Outcome(figure, not crashes and not counts["partly"])


def read_all(cases: Sequence[tuple[str, str]], folder: Path) -> Counter[str]:
    """Damage a file, read it with read_image, and count the outcomes."""
    warnings.simplefilter("ignore")  # a flipped bit may turn one frame into several
    random, counts = np.random.default_rng(0), Counter[str]()
    whole = {name: _encoded(name) for name in dict.fromkeys(name for name, _ in cases)}
    path = folder / "image"
    intact = {name: _decoded(content, path) for name, content in whole.items()}
    for name, damage in cases:
        broken = _damaged(whole[name], damage, random)
        try:
            found = _decoded(broken, path)
        except KshotError:
            counts["refused"] += 1
        except Exception as error:
            counts[f"crash: {error!r}"] += 1
        else:
            counts[_judge(name, damage, broken, found, intact[name], path)] += 1
    return counts


def _judge(
    name: str, damage: str, broken: bytes, found: NDArray[Any], intact: NDArray[Any], path: Path
) -> str:
    """Classify an accepted image: intact, damaged or partly decoded.

    An image that differs from the intact one is partly decoded if bytes are missing, or if checksums in the
    file reveal the damage. A JPEG is also partly decoded if its decoder ran out of data and filled in the
    rest: then padding at the end of its scans changes the pixels.
    """
    if np.array_equal(found, intact):
        return "intact"
    if damage != "flipped bits" or name == "PNG":
        return "partly"
    if "JPEG" in name:
        try:
            longer = _decoded(SCANS.sub(lambda scan: scan[0] + PADDING, broken), path)
        except KshotError:
            return "damaged"
        return "damaged" if np.array_equal(longer, found) else "partly"
    return "damaged"


def _formats() -> list[str]:
    return [name for name in FORMATS if name != "AVIF" or features.check("avif")]


def _encoded(name: str) -> bytes:
    content, (kind, options) = BytesIO(), FORMATS[name]
    cat_image().save(content, kind, **options)
    return content.getvalue()


def _decoded(content: bytes, path: Path) -> NDArray[Any]:
    path.write_bytes(content)
    return np.asarray(read_image(path))


def _damaged(content: bytes, damage: str, random: np.random.Generator) -> bytes:
    broken = bytearray(content)
    match damage:
        case "empty":
            return b""
        case "text":
            return b"This is not an image.\n" * int(random.integers(1, 50))
        case "wrong header":
            broken[:12] = random.bytes(12)
        case "truncated":
            del broken[random.integers(1, len(broken)) :]
        case _:
            for place in random.integers(len(broken), size=random.integers(1, 4)):
                broken[place] ^= 1 << random.integers(8)
    return bytes(broken)


ROWS = (
    Row(
        "images",
        "image files: empty, text, wrong header, truncated; flipped bits in PNG",
        "0 crashes, 0 partly decoded accepted",
        broken_files,
    ),
    Row(
        "flipped-bits",
        "flipped bits in JPEG, TIFF, WebP, GIF, BMP, AVIF, where no checksum of the pixels is checked",
        "0 crashes, 0 partly decoded accepted",
        flipped_bits,
    ),
)
