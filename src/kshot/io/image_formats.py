"""Which files of a folder are images, and which are left out, with the reason."""

from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import features

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff",
        ".avif", ".jp2", ".j2k", ".heic", ".heif",
    }
)  # fmt: skip
"""Suffixes of the images that are found in folders; some need a library, see `missing_library`."""

OTHER_SUFFIXES = frozenset(
    {
        ".gif", ".ico", ".eps", ".svg", ".psd", ".pdf", ".jxl", ".exr", ".hdr", ".jpe", ".jpx", ".jpf",
        ".mpo",        ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".icns", ".dds", ".czi", ".nd2", ".lif",
        ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw",
    }
)  # fmt: skip
"""Suffixes of images that are not looked for in folders, which is reported."""

HEIF_SUFFIXES = frozenset({".heic", ".heif"})

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands in the header of HEIC files."""

HEIF_LIBRARY = "pillow_heif"


class LeftOut(NamedTuple):
    """A file or folder that was not read. kind: what it is, such as ".heic"; reason: why, or what to do."""

    path: Path
    kind: str
    reason: str


def left_out_line(left_out: Iterable[LeftOut]) -> str:
    """Return one line, such as "left out: 5 files (.heic: pip install 'kshot[heif]')"; "" for none."""
    counts = Counter((one.kind, one.reason) for one in left_out)
    if not counts:
        return ""
    total = sum(counts.values())
    kinds = ", ".join(
        f"{f'{number} ' if len(counts) > 1 else ''}{kind}: {reason}"
        for (kind, reason), number in counts.items()
    )
    return f"left out: {total} file{'s' if total > 1 else ''} ({kinds})"


def check_file(path: Path) -> LeftOut | None:
    """Return why a file of a folder is left out; None if it is read, or is no image."""
    suffix = path.suffix.lower()
    if suffix in OTHER_SUFFIXES:
        return LeftOut(path, suffix, "convert to PNG or JPEG, or name the file as an input")
    remedy = missing_library(suffix) if suffix in IMAGE_SUFFIXES else ""
    return LeftOut(path, suffix, remedy) if remedy else None


def missing_library(suffix: str) -> str:
    """Return what to do if files with this suffix cannot be read by this installation; "" if they can."""
    if suffix in HEIF_SUFFIXES and find_spec(HEIF_LIBRARY) is None:
        return "pip install 'kshot[heif]'"
    if suffix == ".avif" and not features.check("avif"):
        return "install a Pillow with AVIF"
    if suffix in (".jp2", ".j2k") and not features.check("jpg_2000"):
        return "install a Pillow with JPEG 2000"
    return ""


def is_heif(start: bytes) -> bool:
    """Return whether a file's first 12 bytes are those of a HEIC image."""
    return start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS


def enable_heif() -> bool:
    """Let Pillow read HEIC images; return False if the library is not installed."""
    try:
        import_module(HEIF_LIBRARY).register_heif_opener()
    except ImportError:
        return False
    return True
