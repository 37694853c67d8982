"""Open image files safely: checked before they are decoded, then decoded completely or refused."""

import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from kshot.errors import ImageError, KshotError, MaskError, reason_of
from kshot.io.high_bit_depth import fix_raw_mode
from kshot.io.image_formats import enable_heif, is_heif
from kshot.io.png_chunks import without_metadata

logger = logging.getLogger(__name__)

MAX_PIXELS = 200_000_000
"""Pixels an image may have unless KSHOT_MAX_PIXELS is set: enough for today's largest cameras."""

PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # from AVIF; NotImplementedError of other formats is a subclass
    MemoryError,
    Image.DecompressionBombError,  # from an image embedded in an image
    struct.error,
    zlib.error,
)
"""What Pillow raises for broken files."""

REFUSED_FORMATS = ("ICO", "EPS")
"""Unsafe formats: Pillow decodes icons of any size on opening, and passes EPS programs to Ghostscript."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files in both byte orders."""

_PILLOW_LIMIT_LOCK = threading.RLock()


@contextmanager
def open_checked(
    source: str | os.PathLike[str] | BytesIO,
    error: type[ImageError | MaskError],
    name: str = "",
    *,
    decode: bool = True,
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
) -> Iterator[ImageFile.ImageFile]:
    """Open an image, or raise `error` with its name and what is wrong.

    name: of a source that is not a file. decode: decode all pixels, which finds damage; else only the header
    is read. max_pixels: None is `pixel_limit`. formats: None is all of Pillow's except REFUSED_FORMATS.
    """
    name = name if isinstance(source, BytesIO) else f"'{os.fspath(source)}'"
    try:
        source = _without_metadata(source, name, error)
        with _open_any_size(source, formats) as header:
            _check_size(header, name, max_pixels, error)
            if decode:
                _warn_of_frames(header, name)
                if header.format == "PNG":
                    header.verify()  # checksums, which Pillow ignores when it decodes
        with _open_any_size(source, formats) as image:
            fix_raw_mode(image)
            if decode:
                image.load()
            yield image
    except KshotError:
        raise  # already our own error, perhaps from the caller's block
    except FileNotFoundError:
        raise error(f"There is no file {name}.") from None
    except UnidentifiedImageError:
        raise error(f"{name} {_why_unknown(source, formats)}") from None
    except PILLOW_ERRORS as problem:
        raise error(f"{name} cannot be read as an image: {reason_of(problem).rstrip('.')}.") from problem


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, which is upright, if the metadata are malformed."""
    name, fault, found = getattr(image, "filename", "") or "An image", "", 1
    with _PILLOW_LIMIT_LOCK, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = int(image.getexif().get(ExifTags.Base.Orientation, 1))
        except PILLOW_ERRORS as problem:
            fault = reason_of(problem)
    fault = fault or (str(caught[0].message).strip() if caught else "")
    if fault:
        logger.warning(f"{name}: its EXIF data are malformed ({fault}); its orientation is taken as {found}.")
    return found


def turn_upright(image: Image.Image) -> None:
    """Turn an image upright in place, which needs less memory than `upright`; other metadata are dropped."""
    if orientation(image) != 1:
        for key in ("exif", "Raw profile type exif"):  # which Pillow would write again, with its faults
            image.info.pop(key, None)
        ImageOps.exif_transpose(image, in_place=True)


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned upright by its EXIF orientation; itself if it is."""
    if orientation(image) == 1:
        return image
    turned = image.copy()  # without the file, but with its metadata
    turned.getexif()[ExifTags.Base.Orientation] = orientation(image)
    turn_upright(turned)
    return turned


def pixel_limit() -> int:
    """Return how many pixels an image may have. Raises KshotError if KSHOT_MAX_PIXELS is not a number."""
    given = os.environ.get("KSHOT_MAX_PIXELS", str(MAX_PIXELS))
    if not given.isdecimal() or int(given) == 0:
        raise KshotError(
            f"KSHOT_MAX_PIXELS is '{given}'; it must be a number of pixels such as {MAX_PIXELS}."
        )
    return int(given)


def _without_metadata(
    source: str | os.PathLike[str] | BytesIO, name: str, error: type[ImageError | MaskError]
) -> str | os.PathLike[str] | BytesIO:
    """Return a PNG without the metadata that Pillow may refuse; other files as they are.

    Also prepares Pillow for HEIC files. Raises `error` if they need an extra that is not installed.
    """
    if isinstance(source, BytesIO):
        source.seek(0)
        start = source.read(16)
        if start.startswith(PNG_SIGNATURE):
            return without_metadata(source) or source
    else:
        with Path(source).open("rb") as file:
            start = file.read(16)
            if start.startswith(PNG_SIGNATURE):
                return without_metadata(file) or source
    if is_heif(start) and not enable_heif():
        raise error(f"{name} is a HEIC image: pip install 'kshot[heif]'.")
    return source


def _open_any_size(
    source: str | os.PathLike[str] | BytesIO, formats: tuple[str, ...] | None
) -> ImageFile.ImageFile:
    """Open an image without Pillow's own size limit, which warns of ordinary photos."""
    formats = formats or _safe_formats()
    with _PILLOW_LIMIT_LOCK:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _safe_formats() -> tuple[str, ...]:
    """Return Pillow's formats except REFUSED_FORMATS, the most common ones first."""
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name not in REFUSED_FORMATS)


def _check_size(
    image: Image.Image, name: str, max_pixels: int | None, error: type[ImageError | MaskError]
) -> None:
    """Raise `error` if the image, not yet decoded, has more pixels than allowed."""
    allowed, pixels = max_pixels or pixel_limit(), image.width * image.height
    if pixels > allowed:
        remedy = (
            f"If the file is what it should be, set the environment variable KSHOT_MAX_PIXELS={pixels}."
            if max_pixels is None
            else "Make it smaller, or use `kshot segment --tile`."
        )
        raise error(
            f"{name} is {image.width} x {image.height} pixels; at most {allowed:,} are allowed, so that a "
            f"small file cannot fill the memory. {remedy}"
        )


def _warn_of_frames(image: Image.Image, name: str) -> None:
    """Warn if a file holds several images, of which only the first is read."""
    number = getattr(image, "n_frames", 1)
    # Phones write MPO: its further images belong to the first one, such as a preview.
    if number > 1 and image.format != "MPO":
        warnings.warn(f"{name} holds {number} images; only the first is read.", stacklevel=4)


def _why_unknown(source: str | os.PathLike[str] | BytesIO, formats: tuple[str, ...] | None) -> str:
    """Return what is wrong with a file that Pillow does not recognise."""
    if isinstance(source, BytesIO):
        start = source.getvalue()[:4]
    else:
        with Path(source).open("rb") as file:
            start = file.read(4)
    if start in TIFF_SIGNATURES:
        return (
            "is a TIFF whose pixels are of a kind that cannot be read, such as 64-bit levels or more than "
            "four channels. Save it with 8 or 16 bits, as grey or RGB."
        )
    known = f" ({', '.join(formats)})" if formats else ""
    return f"is not an image in a format that can be read{known}."
