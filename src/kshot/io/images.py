"""Read every kind of image and mask that kshot accepts.

Sizes are (height, width) in pixels. No input is resized or thresholded silently.
"""

import logging
import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import ImageError, MaskError
from kshot.io.folders import find_files
from kshot.io.high_bit_depth import on_background, select_low_bytes, stretch, to_rgb
from kshot.io.image_files import open_checked, orientation, turn_upright, upright
from kshot.io.image_formats import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from kshot.io.image_formats import LeftOut, check_file, left_out_line
from kshot.io.mask_values import (
    MaskValues,
    check_class_values,
    find_object,
    first_few,
    is_tensor,
    object_classes,
    read_mask_values,
)
from kshot.types import IGNORE_INDEX

if TYPE_CHECKING:  # the command reads images before torch, which takes seconds to import
    from torch import Tensor

logger = logging.getLogger(__name__)

ImageSource = Union[str, os.PathLike[str], Image.Image, NDArray[Any], "Tensor"]
"""A path, a PIL image, an array (H, W, 3), (H, W, 4), (H, W) or (H, W, 1) of uint8, uint16 or floats in
[0, 1], or a tensor (3, H, W) of uint8 or floats in [0, 1]."""

MaskSource = Union[str, os.PathLike[str], Image.Image, NDArray[Any], "Tensor"]
"""A path, a PIL image, or an array or tensor (H, W) or (H, W, 1) of bools, integers or whole floats, or with
equal channels."""


def read_image(source: ImageSource) -> Image.Image:
    """Return any accepted image as an upright 8-bit RGB image; one that already is so is returned itself.

    `kshot.io.high_bit_depth.to_rgb` converts other modes. Of a file with several images the first is read,
    with a warning. Raises ImageError, which names the file, for a file that is not an image, is damaged, or
    has more than MAX_PIXELS pixels.
    """
    name = _name(source)
    if is_tensor(source):
        source = _array_from_tensor(source, name)
    if isinstance(source, np.ndarray):
        return _image_from_array(source, name)
    if isinstance(source, Image.Image):
        if orientation(source) == 1 and source.mode == "RGB" and not source.has_transparency_data:
            return source
        try:
            return to_rgb(upright(source))
        except ValueError as problem:
            raise ImageError(f"Image {name} cannot be used: {problem}.") from problem
    return _read_file(source)


def read_image_bytes(
    content: bytes, name: str, *, max_pixels: int | None = None, formats: tuple[str, ...] | None = None
) -> Image.Image:
    """Read an image file's bytes as `read_image` does. Raises ImageError, which names `name`."""
    return _read_file(BytesIO(content), name, max_pixels, formats)


def read_size(source: ImageSource) -> tuple[int, int]:
    """Return the (height, width) of the upright image; of a file only the header is read."""
    if not isinstance(source, str | os.PathLike):
        image = read_image(source)
        return image.height, image.width
    with open_checked(source, ImageError, decode=False) as image:
        is_sideways = orientation(image) in (5, 6, 7, 8)
        if image.format == "TIFF":
            is_sideways = False  # Pillow already reports the upright size
        return (image.width, image.height) if is_sideways else (image.height, image.width)


def read_mask(
    source: MaskSource, size: tuple[int, int], *, may_be_empty: bool = False, may_be_instances: bool = True
) -> NDArray[np.bool_]:
    """Return the mask of an image of `size` as a bool array (H, W), True on the object.

    A mask holds 0 for background and one other value for the object; 255 beside a class number marks pixels
    to ignore, which count as background. If it holds only 0 and 255, 255 is the object. Palette images are
    read as their indices, and equal channels as one. A file is turned upright by its own EXIF orientation;
    without one it is taken as drawn on the upright image.
    may_be_empty: accept a mask without an object, which marks its image as negative.
    may_be_instances: several values of 16 or 32 bits are instances of the object, which is logged.
    Raises MaskError for another size, no object, no background, colour, or values that are ambiguous.
    """
    name = _name(source)
    mask = _sized(read_mask_values(source, name), name, size)
    found = find_object(mask, name, may_be_empty=may_be_empty, may_be_instances=may_be_instances)
    return np.asarray(found == 1)


def read_label_map(
    source: MaskSource, size: tuple[int, int], classes: Mapping[str, int]
) -> dict[str, NDArray[np.bool_]]:
    """Return the masks of an image of `size`: a bool array (H, W) for each class that occurs, by name.

    classes: each class's value; that of a class named "background" is background, and no class. 0 is
    background too, and 255 marks pixels to ignore, which count as background, unless a class has that value.
    Raises MaskError for another size, a value that no class has, or colour.
    """
    check_class_values(classes)
    name = _name(source)
    values = _sized(read_mask_values(source, name), name, size).values
    unknown = sorted(set(np.unique(values).tolist()) - {0, IGNORE_INDEX, *classes.values()})
    if unknown:
        known = ", ".join(f"{value} ({name})" for name, value in classes.items())
        raise MaskError(
            f"Mask {name} has the value {first_few(unknown)}, which no class has: there are 0, 255 and "
            f"{known}. Name it with the others, or set it to 0; if the mask was blurred or saved as JPEG, "
            "threshold it first."
        )
    masks = {name: np.asarray(values == value) for name, value in object_classes(classes).items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def list_images(
    paths: list[Path], results: Path | None = None, left_out: list[LeftOut] | None = None
) -> list[tuple[Path, Path]]:
    """Return the images in files and folders, each with its path relative to the given file or folder.

    Folders are searched recursively, in alphabetical order, for IMAGE_SUFFIXES; `io.folders.find_files` says
    what is passed over, such as the folder `results`. What it leaves out is logged in one line.
    left_out: list to which files that look like images but are not read are added; None: one line is logged.
    Raises ImageError for a path that does not exist or a folder without images.
    """
    found: list[tuple[Path, Path]] = []
    passed_over: list[LeftOut] = []
    for path in paths:
        if path.is_dir():
            searched = find_files(path, results)
            if line := searched.summary():
                logger.warning(line)
            checked = [(p, check_file(p)) for p in searched.files]
            without = [reason for _, reason in checked if reason is not None]
            passed_over += without
            inside = [p for p, reason in checked if reason is None and p.suffix.lower() in IMAGE_SUFFIXES]
            if not inside:
                line = left_out_line(without)
                raise ImageError(
                    f"Folder {path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})"
                    f"{f'; {line}' if line else ''}."
                )
            found += [(p, p.relative_to(path)) for p in inside]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise ImageError(f"There is no file or folder {path}.")
    if left_out is not None:
        left_out += passed_over
    elif passed_over:
        logger.warning(left_out_line(passed_over))
    return found


def _name(source: ImageSource) -> str:
    if isinstance(source, str | os.PathLike):
        return f"'{os.fspath(source)}'"
    return "(an image in memory)" if isinstance(source, Image.Image) else f"({type(source).__name__})"


def _read_file(
    source: str | os.PathLike[str] | BytesIO,
    name: str = "",
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
) -> Image.Image:
    with open_checked(source, ImageError, name, max_pixels=max_pixels, formats=formats) as image:
        turn_upright(image)  # a copy of a large image would cost memory
        if image.format not in ("PNG", "TIFF") or image.mode not in ("RGB", "RGBA"):
            return to_rgb(image)
        with open_checked(source, ImageError, name, decode=False, max_pixels=max_pixels) as low:
            if not select_low_bytes(low):
                return to_rgb(image)
            turn_upright(low)
            return to_rgb(image, low)


def _array_from_tensor(tensor: "Tensor", name: str) -> NDArray[Any]:
    """Return the values of a tensor (3, H, W) as an array (H, W, 3)."""
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ImageError(f"Image {name} has shape {tuple(tensor.shape)}; a tensor must be (3, H, W).")
    moved = tensor.detach().cpu().permute(1, 2, 0)
    array: NDArray[Any] = (moved.float() if tensor.is_floating_point() else moved).numpy()
    return array


def _image_from_array(array: NDArray[Any], name: str) -> Image.Image:
    """Return an array (H, W), or (H, W, C) of 1, 3 or 4 channels, as an RGB image."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    is_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if (
        not is_shape
        or not (array.dtype in (np.uint8, np.uint16) or array.dtype.kind in "bf")
        or 0 in array.shape
    ):
        raise ImageError(
            f"Image {name} has shape {array.shape} and type {array.dtype}; an array must be (H, W, 3), "
            "(H, W, 4) or (H, W), of uint8, uint16 or floats in [0, 1], and not empty."
        )
    array = _eight_or_sixteen_bits(array, name)
    alpha = None
    if array.ndim == 3 and array.shape[2] == 4:
        array, alpha = array[..., :3], array[..., 3]
    if array.dtype == np.uint16:
        array = stretch(array, None if alpha is None else alpha == 0)
        alpha = None if alpha is None else (alpha >> 8).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(array))
    if alpha is None:
        return image.convert("RGB")
    return on_background(image, Image.fromarray(np.ascontiguousarray(alpha)))


def _eight_or_sixteen_bits(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return bools and floats in [0, 1] as uint8; other arrays as they are."""
    if array.dtype.kind == "f":
        if not ((array >= 0) & (array <= 1)).all():
            raise ImageError(
                f"Image {name} is of {array.dtype} and has values outside [0, 1]: {np.min(array):.4g} to "
                f"{np.max(array):.4g}. Divide 8-bit values by 255; do not normalize them: kshot does."
            )
        return (array.astype(np.float32) * 255).round().astype(np.uint8)
    return array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array


def _sized(mask: MaskValues, name: str, size: tuple[int, int]) -> MaskValues:
    """Return the mask. Raises MaskError unless it has `size`."""
    height, width = mask.values.shape
    if (height, width) == size:
        return mask
    hint = (
        " If it was drawn on the image as stored, which lies on its side (EXIF), turn it like the image."
        if (width, height) == size
        else ""
    )
    raise MaskError(
        f"Mask {name} is {width} x {height} pixels, but its image is {size[1]} x {size[0]}. Give a mask of "
        f"the image's own size.{hint}"
    )
