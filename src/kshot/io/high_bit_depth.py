"""Pixels of every kind -> 8-bit RGB: levels of more than 8 bits, transparency, CMYK, palettes.

Pillow keeps only the upper half of 16-bit colours; here a file is decoded a second time for the other half.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

PERCENTILES = (0.1, 99.9)
"""Of a picture's own levels: what becomes black and white, where levels have more than 8 bits."""

PAPER = "white"
"""What is seen through transparent pixels."""

NATIVE = "L" if sys.byteorder == "little" else "B"
"""Pillow's name for this machine's order of bytes."""

OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if NATIVE == "L" else "L"}
"""Orders of bytes, of which Pillow keeps the upper one, and those that make it keep the lower one."""

MENDED = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""What Pillow takes for the file's order of bytes, though libtiff has turned it into this machine's."""


def mend(picture: ImageFile.ImageFile) -> None:
    """Set a picture that is not decoded yet to be decoded right. Raises ValueError for what cannot be."""
    if not isinstance(picture, TiffImageFile):
        return
    bits = picture.tag_v2.get(ExifTags.Base.BitsPerSample, (8,))
    if len(bits) > 1 and max(bits) > 8 and picture.tag_v2.get(ExifTags.Base.PlanarConfiguration) == 2:
        raise ValueError(
            f"its colours have {max(bits)} bits and lie apart (planar configuration 2); save it with its "
            "colours side by side (planar configuration 1)"
        )
    if picture.tile and picture.tile[0].codec_name == "libtiff":
        picture.tile = [_with_raw_mode(tile, MENDED.get(_raw_mode(tile), "")) for tile in picture.tile]


def choose_lower_bytes(picture: ImageFile.ImageFile) -> bool:
    """Set a picture that is not decoded yet to give the lower half of its 16-bit colours, if it has such."""
    modes = {_raw_mode(tile) for tile in picture.tile}
    if not modes or not all(mode[:-1] in ("RGB;16", "RGBA;16", "RGBX;16") for mode in modes):
        return False
    turned = {mode: mode[:-1] + OTHER_BYTE[mode[-1]] for mode in modes}
    picture.tile = [_with_raw_mode(tile, turned[_raw_mode(tile)]) for tile in picture.tile]
    return True


def to_rgb(picture: Image.Image, lower: Image.Image | None = None) -> Image.Image:
    """Turn a picture of any mode into 8-bit RGB.

    Levels of more than 8 bits are stretched: PERCENTILES of what is seen become black and white, of all
    colours together; not-a-number is black. What is transparent is laid on PAPER. CMYK is taken without a
    colour profile. lower: the lower bytes of 16-bit colours, of which the picture has the upper ones.
    Raises ValueError for modes that have no colours, and for levels that are no numbers.
    """
    levels = _levels(picture, lower)
    if picture.mode == "La":
        picture = picture.convert("LA")  # the one step from there to colours
    if levels is None and picture.has_transparency_data:
        whole = picture.convert("RGBA")
        return _on_paper(whole.convert("RGB"), whole.getchannel("A"))
    if levels is None:
        return picture.convert("RGB")
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else _where_not(picture, levels)
    if alpha is None:
        return Image.fromarray(stretched(levels)).convert("RGB")
    return _on_paper(Image.fromarray(stretched(levels, np.asarray(alpha) == 0)).convert("RGB"), alpha)


def stretched(levels: NDArray[Any], hidden: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Stretch levels (H, W) or (H, W, 3) to 0 … 255. hidden: (H, W), pixels that have no say in it."""
    shown = levels if hidden is None or not hidden.any() else levels[~hidden]
    if levels.dtype.kind == "f":
        shown = shown[np.isfinite(shown)]
        if not shown.size and (hidden is None or not hidden.all()):
            raise ValueError("none of its levels is a number")
    result = np.zeros(levels.shape, np.uint8)
    if not shown.size:
        return result
    black, white = np.percentile(shown, PERCENTILES, method="nearest").tolist()
    if black == white:  # nearly all is alike: what differs shall be seen
        black, white = shown.min().item(), shown.max().item()
    if black < white:
        for to, row in zip(
            result, levels, strict=True
        ):  # row by row: all at once would be eight times as large
            known = np.nan_to_num(row, nan=black)
            to[...] = np.interp(known, (black, white), (0, 255)).round()
    return result


def _levels(picture: Image.Image, lower: Image.Image | None) -> NDArray[Any] | None:
    """Give levels of more than 8 bits, (H, W) or (H, W, 3); None if there are no such."""
    if lower is not None:
        upper, rest = (np.asarray(half)[..., :3].astype(np.uint16) for half in (picture, lower))
        return (upper << 8) | rest
    if picture.mode not in ("L", "I", "F") and not picture.mode.startswith("I;16"):
        return None
    tags = picture.tag_v2 if isinstance(picture, TiffImageFile) else {}
    kind = tags.get(ExifTags.Base.SampleFormat, (1,))[0]  # 1 unsigned, 2 signed, 3 floating point
    if picture.mode == "L":
        return np.asarray(picture).view(np.int8) if kind == 2 else None
    levels = np.asarray(picture)
    if picture.mode == "I" and tags and kind == 1:
        levels = levels.view(np.uint32)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # 0 is white
        return -levels if picture.mode == "F" else ~levels
    return levels


def _where_not(picture: Image.Image, levels: NDArray[Any]) -> Image.Image | None:
    """Give where a PNG does not have the one level, or colour, that it says is transparent."""
    if "transparency" not in picture.info:
        return None
    differs = levels != np.array(picture.info["transparency"])
    return Image.fromarray(differs if differs.ndim == 2 else differs.any(axis=-1))


def _on_paper(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    paper = Image.new("RGB", picture.size, PAPER)
    paper.paste(picture, mask=alpha)
    return paper


def _raw_mode(tile: ImageFile._Tile) -> str:
    return str(tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0])


def _with_raw_mode(tile: ImageFile._Tile, mode: str) -> ImageFile._Tile:
    """Give a tile another raw mode; an empty one leaves it."""
    if not mode:
        return tile
    return tile._replace(args=mode if isinstance(tile.args, str) else (mode, *(tile.args or ())[1:]))
