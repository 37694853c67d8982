"""Broken image files: empty, text, a wrong start, cut off, flipped bits."""

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

from benchmarks.robustness.isolated import Crashed, alone
from benchmarks.robustness.rows import Found, Row
from benchmarks.robustness.samples import photograph
from kshot.errors import KshotError
from kshot.io.images import read_image

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
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
DAMAGES = ("empty", "text", *["wrong start"] * 3, *["cut off"] * 8, *["flipped bits"] * 7)
"""In the proportion in which they are tried."""

SCANS = re.compile(rb"\xff\xda(?:[^\xff]|\xff[\x00\xd0-\xd7])*", flags=re.DOTALL)
"""A JPEG's pixels: from each start of a scan to the next marker."""

MORE = b"\x55\xaa" * 32


def broken_files(folder: Path, count: int = 500) -> Found:
    """Read files of all kinds that are broken in all ways; bits are flipped where there are check sums."""
    kinds = list(_kinds())
    cases = [(kinds[n % len(kinds)], DAMAGES[n // len(kinds) % len(DAMAGES)]) for n in range(count)]
    cases = [("PNG" if damage == "flipped bits" else kind, damage) for kind, damage in cases]
    return _found(cases, folder)


def flipped_bits(folder: Path, count: int = 500) -> Found:
    """Read files with flipped bits, of kinds that have no check sums of their pixels."""
    kinds = [kind for kind in _kinds() if kind != "PNG"]
    return _found([(kinds[n % len(kinds)], "flipped bits") for n in range(count)], folder)


def _found(cases: list[tuple[str, str]], folder: Path) -> Found:
    try:
        counts = alone(read_all, cases, folder)
    except Crashed as error:
        return Found(f"{len(cases)} files: {error}", False)
    crashes = sum(number for what, number in counts.items() if what.startswith("crash"))
    figure = (
        f"{len(cases)} files: {crashes} crashes, {counts['partly']} partly decoded accepted; "
        f"{counts['refused']} refused, {counts['the same']} read like the whole file"
    )
    if counts["as it stands"]:
        figure += f", {counts['as it stands']} read to their end, with the damage in their pixels"
    return Found(figure, not crashes and not counts["partly"])


def read_all(cases: Sequence[tuple[str, str]], folder: Path) -> Counter[str]:
    """Break a file in each way, read it as users do, and count what happens."""
    warnings.simplefilter("ignore")  # a flipped bit may make several pictures of one
    random, counts = np.random.default_rng(0), Counter[str]()
    whole = {kind: _encoded(kind) for kind in dict.fromkeys(kind for kind, _ in cases)}
    path = folder / "photograph"
    intact = {kind: _decoded(content, path) for kind, content in whole.items()}
    for kind, damage in cases:
        broken = _damaged(whole[kind], damage, random)
        try:
            found = _decoded(broken, path)
        except KshotError:
            counts["refused"] += 1
        except Exception as error:
            counts[f"crash: {error!r}"] += 1
        else:
            counts[_judge(kind, damage, broken, found, intact[kind], path)] += 1
    return counts


def _judge(
    kind: str, damage: str, broken: bytes, found: NDArray[Any], intact: NDArray[Any], path: Path
) -> str:
    """Say what an accepted picture is.

    One that differs from the whole file's is only partly decoded if bytes of it are missing, or its file
    holds sums that show the damage. A JPEG is partly decoded, too, if its decoder ran out of pixels and
    filled in the rest: with more bytes at the end of its scans there are other pixels.
    """
    if np.array_equal(found, intact):
        return "the same"
    if damage != "flipped bits" or kind == "PNG":
        return "partly"
    if "JPEG" in kind:
        try:
            longer = _decoded(SCANS.sub(lambda scan: scan[0] + MORE, broken), path)
        except KshotError:
            return "as it stands"
        return "as it stands" if np.array_equal(longer, found) else "partly"
    return "as it stands"


def _kinds() -> list[str]:
    return [kind for kind in KINDS if kind != "AVIF" or features.check("avif")]


def _encoded(kind: str) -> bytes:
    content, (name, options) = BytesIO(), KINDS[kind]
    photograph().save(content, name, **options)
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
            return b"This is no photograph.\n" * int(random.integers(1, 50))
        case "wrong start":
            broken[:12] = random.bytes(12)
        case "cut off":
            del broken[random.integers(1, len(broken)) :]
        case _:
            for place in random.integers(len(broken), size=random.integers(1, 4)):
                broken[place] ^= 1 << random.integers(8)
    return bytes(broken)


ROWS = (
    Row(
        "images",
        "image files that are empty, text, have a wrong start or are cut off; flipped bits in PNG",
        "0 crashes, 0 partly decoded accepted",
        broken_files,
    ),
    Row(
        "flipped-bits",
        "flipped bits in JPEG, TIFF, WebP, GIF, BMP, AVIF: no sums of pixels are kept, or looked at",
        "0 crashes, 0 partly decoded accepted",
        flipped_bits,
    ),
)
