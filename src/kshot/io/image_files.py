"""The one door for files of pictures: checked before they are decoded, decoded whole or not at all."""

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from kshot.errors import ImageError, KshotError, MaskError, reason_of
from kshot.io.high_bit_depth import mend

MAX_PIXELS = 200_000_000
"""Of a picture, unless the environment variable KSHOT_MAX_PIXELS says otherwise: today's largest cameras."""

FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # of AVIF; some formats' NotImplementedError is one too
    MemoryError,
    Image.DecompressionBombError,  # of a picture within a picture
    struct.error,
    zlib.error,
)
"""What Pillow raises for broken files."""

NEVER_TRIED = ("ICO", "EPS")
"""Formats that are no photographs' and do harm: icons are decoded, whatever their size, when they are opened;
an EPS is a program, which Pillow hands to Ghostscript."""

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes, of both orders and both sizes."""

_PILLOWS_LIMIT = threading.Lock()


@contextmanager
def opened(
    source: str | os.PathLike[str] | BytesIO,
    error: type[ImageError | MaskError],
    name: str = "",
    *,
    whole: bool = True,
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
) -> Iterator[ImageFile.ImageFile]:
    """Open a picture, or raise `error` with its name and what is wrong.

    name: of what is no file. whole: decode it all, which finds what is wrong with it. max_pixels: None is
    `pixel_limit`. formats: those that are tried; None is all that Pillow knows but for NEVER_TRIED.
    """
    name = name if isinstance(source, BytesIO) else f"'{os.fspath(source)}'"
    try:
        with _open_any_size(source, formats) as head:
            _check_size(head, name, max_pixels, error)
            if whole:
                _check_frames(head, name)
                if head.format == "PNG":
                    head.verify()  # its sums, which Pillow does not look at when it decodes
        with _open_any_size(source, formats) as picture:
            mend(picture)
            if whole:
                picture.load()
            yield picture
    except KshotError:
        raise  # in our words already, also from the block that uses the picture
    except FileNotFoundError:
        raise error(f"There is no file {name}.") from None
    except UnidentifiedImageError:
        raise error(f"{name} {_why_unknown(source, formats)}") from None
    except FAULTS as problem:
        raise error(f"{name} cannot be read as an image: {reason_of(problem).rstrip('.')}.") from problem


def pixel_limit() -> int:
    """Give how many pixels a picture may have. Raises KshotError if KSHOT_MAX_PIXELS is no such number."""
    given = os.environ.get("KSHOT_MAX_PIXELS", str(MAX_PIXELS))
    if not given.isdecimal() or int(given) == 0:
        raise KshotError(
            f"KSHOT_MAX_PIXELS is '{given}'; it must be a number of pixels such as {MAX_PIXELS}."
        )
    return int(given)


def _open_any_size(
    source: str | os.PathLike[str] | BytesIO, formats: tuple[str, ...] | None
) -> ImageFile.ImageFile:
    """Open a picture without Pillow's own limit, which warns of ordinary photographs; ours comes next."""
    formats = formats or _safe_formats()
    with _PILLOWS_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _safe_formats() -> tuple[str, ...]:
    """Name the formats that Pillow knows, without those that do harm; the most usual ones come first."""
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name not in NEVER_TRIED)


def _check_size(
    picture: Image.Image, name: str, max_pixels: int | None, error: type[ImageError | MaskError]
) -> None:
    """Raise `error` for more pixels than are allowed; nothing has been decoded yet."""
    allowed, pixels = max_pixels or pixel_limit(), picture.width * picture.height
    if pixels > allowed:
        remedy = (
            f"If the file is what it should be, set the environment variable KSHOT_MAX_PIXELS={pixels}."
            if max_pixels is None
            else "Make it smaller, or use `kshot segment --tile`."
        )
        raise error(
            f"{name} is {picture.width} x {picture.height} pixels; at most {allowed:,} are taken, so that a "
            f"small file cannot fill the memory. {remedy}"
        )


def _check_frames(picture: Image.Image, name: str) -> None:
    """Warn of a file with several pictures, of which only the first is read."""
    number = getattr(picture, "n_frames", 1)
    # MPO is what phones write: further pictures belong to the first, such as its preview.
    if number > 1 and picture.format != "MPO":
        warnings.warn(f"{name} holds {number} pictures; the first is read.", stacklevel=4)


def _why_unknown(source: str | os.PathLike[str] | BytesIO, formats: tuple[str, ...] | None) -> str:
    """Say what is wrong with a file that Pillow does not know."""
    if isinstance(source, BytesIO):
        start = source.getvalue()[:4]
    else:
        with Path(source).open("rb") as file:
            start = file.read(4)
    if start in TIFF_STARTS:
        return (
            "is a TIFF whose pixels are of a kind that cannot be read, such as 64-bit levels or more than "
            "four channels. Save it with 8 or 16 bits, as grey or RGB."
        )
    known = f" ({', '.join(formats)})" if formats else ""
    return f"is not an image in a format that can be read{known}."
