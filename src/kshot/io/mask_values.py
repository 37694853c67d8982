"""Decode masks of every kind to their values, and find the one object that they mark.

What is unambiguous is accepted; anything else is an error that shows the values and how to state their
meaning.
"""

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

from kshot.errors import MaskError
from kshot.io.high_bit_depth import nodata_value, raw_modes, select_low_bytes
from kshot.io.image_files import open_checked, upright
from kshot.types import IGNORE_INDEX, GroundTruth

if TYPE_CHECKING:  # the command reads images before torch, which takes seconds to import
    from torch import Tensor
    from typing_extensions import TypeIs

logger = logging.getLogger(__name__)

BACKGROUND = "background"
"""Name that states the background's value among classes, as in `background=1,cell=2`."""

MAX_CLASS_NUMBER = 20
"""Largest grey value that 255 beside it marks as a class number (VOC has 20 classes), not a grey level."""

STATE = (
    "State what the values mean: --classes NAME=VALUE,… (Python: classes={{…}}), such as --classes "
    "object={value}"
)

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class MaskValues:
    """The values of a mask. values: (H, W), bools or integers. palette: colours (n, 3) of palette images."""

    values: NDArray[Any]
    palette: NDArray[np.uint8] | None = None

    @property
    def is_deep(self) -> bool:
        """Whether values have 16 or 32 bits, as label images of cell-segmentation tools do."""
        return self.values.dtype.kind in "iu" and self.values.dtype.itemsize in (2, 4)


def read_mask_values(source: Any, name: str) -> MaskValues:
    """Return the values of a mask: a path, a PIL image, an array or a tensor.

    Channels that are equal become one, whole floats become integers, palettes are read as indices, and a file
    is turned upright. Raises MaskError for colours, fractions, and files that cannot be read.
    """
    if is_tensor(source):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
    if isinstance(source, np.ndarray):
        return MaskValues(_integers(_one_channel(source, name), name))
    if isinstance(source, Image.Image):
        return _from_image(source, name)
    return _from_file(source, name)


def find_object(
    mask: MaskValues,
    name: str,
    *,
    may_be_empty: bool = False,
    may_be_full: bool = False,
    may_be_instances: bool = True,
) -> GroundTruth:
    """Return where a mask marks its one object: uint8 (H, W), 1 on the object, 255 where it is to be ignored.

    A mask holds 0 for background and one other value for the object. 255 beside a class number is to be
    ignored. Several values of 16 or 32 bits are instances of one class, unless not `may_be_instances`.
    may_be_empty, may_be_full: accept a mask without object, or without background.
    Raises MaskError for an ambiguous mask, with its values and how to state their meaning.
    """
    values = mask.values
    found = [int(value) for value in np.unique(values)]
    objects = [value for value in found if value != 0]
    if not objects and not may_be_empty:
        raise MaskError(f"Mask {name} is empty: all its pixels are 0. Mark the object with 1 or 255.")
    if values.dtype == np.bool_ or not objects or (may_be_full and len(found) == 1 and found[0] > 0):
        return np.asarray(values != 0, dtype=np.uint8)
    _check_background(mask, found, name)
    result = np.zeros(values.shape, np.uint8)
    if len(objects) == 2 and _is_ignored(mask, objects[0], objects[1]):
        result[values == IGNORE_INDEX] = IGNORE_INDEX
        objects = objects[:1]
    if len(objects) > 1:
        _check_instances(mask, objects, name, may_be_instances)
        result[values != 0] = 1
    else:
        result[values == objects[0]] = 1
    return result


def object_classes(classes: Mapping[str, Value]) -> dict[str, Value]:
    """Return the classes without the one named "background", whose value is that of the background."""
    objects = {name: value for name, value in classes.items() if name.casefold() != BACKGROUND}
    return objects or dict(classes)  # a single class may have any name


def check_class_values(classes: Mapping[str, int]) -> None:
    """Raise MaskError for classes that share a value, or have 0 although no background is stated."""
    given, is_stated = list(classes.values()), len(object_classes(classes)) < len(classes)
    if len(set(given)) < len(given) or (0 in given and not is_stated):
        raise MaskError(
            f"Classes have the values {given}; each needs its own, and 0 is the background unless another "
            "value is (background=1,object=0)."
        )


def first_few(values: list[int]) -> str:
    """Return the first five values as text, with "…" if there are more."""
    return ", ".join(map(str, values[:5])) + (" …" if len(values) > 5 else "")


def is_tensor(source: object) -> "TypeIs[Tensor]":
    """Return whether an object is a tensor; there is none before torch is imported."""
    return "torch" in sys.modules and isinstance(source, sys.modules["torch"].Tensor)


def _check_background(mask: MaskValues, found: list[int], name: str) -> None:
    """Raise MaskError unless 0 is clearly the background."""
    if found[0] < 0:
        raise MaskError(
            f"Mask {name} has negative values ({first_few(found)}): which is the object cannot be told. "
            f"Save it with 0 for the background and 1 for the object."
        )
    if len(found) == 1:
        raise MaskError(
            f"Mask {name} marks every pixel: all are {found[0]}, so no background is left. If the whole "
            f"image is the object, say so: --classes object={found[0]} (Python: "
            f"classes={{'object': {found[0]}}}); if not, mark the background with 0."
        )
    if found[0] != 0:
        raise MaskError(
            f"Mask {name} has no background: it holds {len(found)} values ({first_few(found)}), but no 0. "
            f"State their meaning: --classes background={found[0]},object={found[1]} (Python: classes={{…}})."
        )
    if len(found) == 2 and _is_drawn_inverted(mask, found[1]):
        raise MaskError(
            f"Mask {name} is ambiguous: its palette shows 0 as brighter than {found[1]}, so either may be "
            f"the object. State it: --classes background=0,object={found[1]}, or "
            f"background={found[1]},object=0 (Python: classes={{…}})."
        )


def _is_drawn_inverted(mask: MaskValues, value: int) -> bool:
    """Return whether a palette shows 0 and `value` as greys, 0 as the brighter one."""
    if mask.palette is None or value >= len(mask.palette):
        return False
    pair = mask.palette[[0, value]].astype(int)
    return bool((pair == pair[:, :1]).all() and pair[0, 0] > pair[1, 0])


def _is_ignored(mask: MaskValues, first: int, second: int) -> bool:
    """Return whether 255 beside `first` marks pixels to ignore, as beside class numbers."""
    if second != IGNORE_INDEX or (mask.is_deep and first > 1):
        return False
    return first <= MAX_CLASS_NUMBER or (mask.palette is not None and not _is_grey_ramp(mask.palette))


def _is_grey_ramp(palette: NDArray[np.uint8]) -> bool:
    return bool((palette == np.arange(len(palette))[:, None]).all())


def _check_instances(mask: MaskValues, objects: list[int], name: str, may_be_instances: bool) -> None:
    """Log that several values are instances of one class. Raises MaskError if they may be something else."""
    bits = 8 * mask.values.dtype.itemsize
    shown = f"{len(objects)} object values ({first_few(objects)}) in {bits} bits"
    has_white = objects[-1] == (1 << bits) - 1 or (objects[-1] == IGNORE_INDEX and 254 not in objects)
    if mask.is_deep and may_be_instances and not has_white and _are_regions(mask.values):
        logger.info(f"Mask {name}: its {shown} are taken as instances of one class.")
        return
    raise MaskError(
        f"Mask {name} has {shown}, but a support mask marks one object class. "
        f"{STATE.format(value=objects[-1])}; if they are instances of one class, save them as 1; if the mask "
        "was blurred or saved as JPEG, threshold it first."
    )


def _are_regions(values: NDArray[Any]) -> bool:
    """Return whether most neighbours on objects have the same value, as in label images, not in photos."""
    same = total = 0
    for first, second in ((values[1:], values[:-1]), (values[:, 1:], values[:, :-1])):
        both = (first != 0) & (second != 0)
        total += int(np.count_nonzero(both))
        same += int(np.count_nonzero(both & (first == second)))
    return 2 * same >= total


def _from_file(source: str | os.PathLike[str], name: str) -> MaskValues:
    with open_checked(source, MaskError) as image:
        if image.format not in ("PNG", "TIFF") or image.mode not in ("RGB", "RGBA", "LA"):
            return _from_image(image, name)
        with open_checked(source, MaskError, decode=False) as low:
            if "LA;16B" in raw_modes(low):
                raise MaskError(f"Mask {name} has 16 bits and transparency. Save it without transparency.")
            if not select_low_bytes(low):
                return _from_image(image, name)
            high_bytes, low_bytes = (np.asarray(upright(half)).astype(np.uint16) for half in (image, low))
            return MaskValues(_one_channel((high_bytes << 8) | low_bytes, name))


def _from_image(image: Image.Image, name: str) -> MaskValues:
    is_deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    if image.mode not in ("1", "L", "P", "LA", "RGB", "RGBA") and not is_deep:
        raise MaskError(
            f"Mask {name} is an image in mode {image.mode}; a mask has one channel of object values. "
            "Save it as greyscale, palette or 1-bit PNG."
        )
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if is_deep and tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        raise MaskError(
            f"Mask {name} stores white as 0 (TIFF photometric interpretation 0), so which value is the "
            "background cannot be told. Save it with black as 0."
        )
    values = np.asarray(upright(image))
    if (nodata := nodata_value(image)) is not None:
        values = np.where(values == nodata, 0, values).astype(values.dtype)
    if image.mode == "1":
        values = values.astype(np.uint8)
    palette = image.getpalette("RGB") if image.mode == "P" else None
    colours = None if palette is None else np.array(palette, np.uint8).reshape(-1, 3)
    return MaskValues(_integers(_one_channel(values, name), name), colours)


def _one_channel(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return values (H, W) of one channel, or of channels that are equal, with or without transparency."""
    if values.dtype.kind not in "biuf" or values.ndim not in (2, 3):
        raise MaskError(
            f"Mask {name} has shape {values.shape} and type {values.dtype}; it must be (H, W), of bools or "
            "integers."
        )
    if values.ndim == 2:
        return values
    if values.shape[2] == 1:
        return np.asarray(values[..., 0])
    if values.shape[0] == 1 and values.shape[2] not in (2, 3, 4):
        return np.asarray(values[0])
    if values.shape[2] not in (2, 3, 4):
        raise MaskError(
            f"Mask {name} has shape {values.shape}; it must be (H, W), of bools or integers, or "
            "(H, W, 1), (H, W, 3) or (H, W, 4) with equal channels."
        )
    has_alpha = values.shape[2] in (2, 4)
    colours = values[..., :-1] if has_alpha else values
    grey: NDArray[Any] = colours[..., 0]
    if not (colours == grey[..., None]).all():
        shown = np.unique(colours[(colours != grey[..., None]).any(axis=2)], axis=0)[:3].tolist()
        raise MaskError(
            f"Mask {name} has colours such as {', '.join(str(tuple(one)) for one in shown)}; a mask has one "
            "channel of object values. Save it as greyscale, palette or 1-bit PNG."
        )
    if has_alpha and values.size:
        _check_alpha(grey, values[..., -1], name)
    return grey


def _check_alpha(grey: NDArray[Any], alpha: NDArray[Any], name: str) -> None:
    """Raise MaskError unless the mask is opaque, or transparent only on its background."""
    hidden, opaque = alpha == 0, alpha == alpha.max()
    is_plain = bool(alpha.max() > 0 and (hidden | opaque).all()) and not grey[hidden].any()
    if not is_plain or (hidden.any() and not grey.any()):
        shown = np.unique(np.nan_to_num(alpha).clip(0, 65535)).astype(int).tolist()  # floats may be infinite
        raise MaskError(
            f"Mask {name} has transparent pixels (alpha {first_few(shown)}) "
            "that differ from its values, so which mark the object cannot be told. Save it without "
            "transparency."
        )


def _integers(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Return bools and integers as they are, and floats that are whole numbers as integers."""
    if values.dtype.kind != "f":
        return values
    if not np.isfinite(values).all() or np.abs(values, dtype=np.float64).max(initial=0) > 2**53:
        raise MaskError(
            f"Mask {name} has values that are no numbers or too large ({values.dtype}). Save it with 0 for "
            "the background and 1 for the object."
        )
    whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        between = float(values[whole != values][0])
        raise MaskError(
            f"Mask {name} has {values.dtype} values that are no integers, such as {between:.6g}; it must be "
            "of bools or integers. Threshold it first, such as mask > 0.5."
        )
    return whole
