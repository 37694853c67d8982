"""Convert pixels of every kind to 8-bit RGB: more than 8 bits, transparency, CMYK, palettes.

Pillow keeps only the high byte of 16-bit colours, so those files are decoded twice: once for each byte.
"""

import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

PERCENTILES = (0.1, 99.9)
"""Percentiles of an image's own values that become black and white if it has more than 8 bits."""

BACKGROUND = "white"
"""Colour behind transparent pixels."""

GDAL_NODATA = 42113
"""TIFF tag with the value, as text, of pixels without data."""

LARGEST_LEVEL = 1e38
"""Levels beyond it are placeholders for no data, such as -3.4e38: no sensor measures them."""

NATIVE = "L" if sys.byteorder == "little" else "B"
"""Pillow's name for this machine's byte order."""

SWAPPED_ORDER = {"L": "B", "B": "L", "N": "B" if NATIVE == "L" else "L"}
"""Byte orders of 16-bit colours, and the orders that make Pillow keep the low byte, not the high one."""

FIXED_RAW_MODES = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Raw modes in which Pillow expects the file's byte order, though libtiff returns the native one."""


def fix_raw_mode(image: ImageFile.ImageFile) -> None:
    """Correct how Pillow will decode a TIFF. Call before decoding. Raises ValueError if it cannot."""
    if not isinstance(image, TiffImageFile):
        return
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (8,))
    if len(bits) > 1 and max(bits) > 8 and image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == 2:
        raise ValueError(
            f"its colours have {max(bits)} bits and lie in separate planes (planar configuration 2); save it "
            "with interleaved colours (planar configuration 1)"
        )
    if image.tile and image.tile[0].codec_name == "libtiff":
        image.tile = [_with_raw_mode(tile, FIXED_RAW_MODES.get(_raw_mode(tile), "")) for tile in image.tile]


def select_low_bytes(image: ImageFile.ImageFile) -> bool:
    """Make Pillow decode the low bytes of 16-bit colours; return False if the image has none.

    Call before decoding.
    """
    modes = raw_modes(image)
    if not modes or not all(mode[:-1] in ("RGB;16", "RGBA;16", "RGBX;16") for mode in modes):
        return False
    swapped = {mode: mode[:-1] + SWAPPED_ORDER[mode[-1]] for mode in modes}
    image.tile = [_with_raw_mode(tile, swapped[_raw_mode(tile)]) for tile in image.tile]
    return True


def to_rgb(image: Image.Image, low: Image.Image | None = None) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    Values of more than 8 bits are stretched: PERCENTILES of the visible ones, over all channels together,
    become black and white; NaN is black. Transparent pixels show BACKGROUND. CMYK is converted without a
    colour profile. low: the low bytes of 16-bit colours, if `image` holds the high bytes.
    Raises ValueError for modes without colours and for values that are all NaN.
    """
    levels = _deep_levels(image, low)
    if image.mode == "La":
        image = image.convert("LA")  # Pillow converts La to no other mode
    if levels is None and image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        return on_background(with_alpha.convert("RGB"), with_alpha.getchannel("A"))
    if levels is None:
        return image.convert("RGB")
    alpha = image.getchannel("A") if image.mode == "RGBA" else _opaque_pixels(image, levels)
    if alpha is None:
        return Image.fromarray(_stretch_data(levels, nodata_value(image))).convert("RGB")
    return on_background(Image.fromarray(stretch(levels, np.asarray(alpha) == 0)).convert("RGB"), alpha)


def stretch(levels: NDArray[Any], hidden: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Stretch values (H, W) or (H, W, 3) to 0 … 255. hidden: (H, W), pixels not used for the percentiles."""
    visible = levels if hidden is None or not hidden.any() else levels[~hidden]
    if levels.dtype.kind == "f":
        visible = visible[np.abs(visible) < LARGEST_LEVEL]  # not NaN, which is no data either
        if not visible.size and (hidden is None or not hidden.all()):
            raise ValueError("none of its levels is a number")
    result = np.zeros(levels.shape, np.uint8)
    if not visible.size:
        return result
    black, white = np.percentile(visible, PERCENTILES, method="nearest").tolist()
    if black == white:  # nearly constant: the few other values must stay visible
        black, white = visible.min().item(), visible.max().item()
    if black < white:
        # Row by row: all rows at once would need eight times the memory.
        for target, row in zip(result, levels, strict=True):
            known = np.nan_to_num(row, nan=black)
            target[...] = np.interp(known, (black, white), (0, 255)).round()
    return result


def _stretch_data(levels: NDArray[Any], nodata: float | None) -> NDArray[np.uint8]:
    """Stretch values; those without data become black and do not count for the percentiles."""
    if nodata is None or not (missing := levels == nodata).any():
        return stretch(levels)
    missing = missing if missing.ndim == 2 else missing.all(axis=2)
    grey = stretch(levels, missing)
    grey[missing] = 0
    return grey


def _deep_levels(image: Image.Image, low: Image.Image | None) -> NDArray[Any] | None:
    """Return values of more than 8 bits, (H, W) or (H, W, 3); None if the image has 8 bits."""
    if low is not None:
        high_bytes, low_bytes = (np.asarray(half)[..., :3].astype(np.uint16) for half in (image, low))
        return (high_bytes << 8) | low_bytes
    if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
        return None
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    sample_format = tags.get(ExifTags.Base.SampleFormat, (1,))[0]  # 1 unsigned, 2 signed, 3 floating point
    if image.mode == "L":
        return np.asarray(image).view(np.int8) if sample_format == 2 else None
    levels = np.asarray(image)
    if image.mode == "I" and tags and sample_format == 1:
        levels = levels.view(np.uint32)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # 0 is white
        return -levels if image.mode == "F" else ~levels
    return levels


def _opaque_pixels(image: Image.Image, levels: NDArray[Any]) -> Image.Image | None:
    """Return the opaque pixels of a PNG that declares one value or colour transparent; None for others."""
    if "transparency" not in image.info:
        return None
    differs = levels != np.array(image.info["transparency"])
    return Image.fromarray(differs if differs.ndim == 2 else differs.any(axis=-1))


def raw_modes(image: ImageFile.ImageFile) -> set[str]:
    """Return Pillow's names of how the pixels are stored; none once the image is decoded."""
    return {_raw_mode(tile) for tile in image.tile}


def nodata_value(image: Image.Image) -> float | None:
    """Return the value that a TIFF declares as no data (GDAL's tag), if it is a number; else None."""
    text = str(image.tag_v2.get(GDAL_NODATA, "")) if isinstance(image, TiffImageFile) else ""
    with suppress(ValueError):
        value = float(text.strip("\0 "))
        return float(np.float32(value)) if image.mode == "F" and np.isfinite(value) else value
    return None


def on_background(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return an image of which `alpha` (0 to 255) is visible, on BACKGROUND."""
    result = Image.new("RGB", image.size, BACKGROUND)
    result.paste(image, mask=alpha)
    return result


def _raw_mode(tile: ImageFile._Tile) -> str:
    return str(tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0])


def _with_raw_mode(tile: ImageFile._Tile, mode: str) -> ImageFile._Tile:
    """Return the tile with another raw mode; an empty mode changes nothing."""
    if not mode:
        return tile
    return tile._replace(args=mode if isinstance(tile.args, str) else (mode, *(tile.args or ())[1:]))
