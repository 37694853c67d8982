"""Read every kind of image and mask that kshot accepts.

Sizes are (height, width) in pixels. No input is resized or thresholded silently.
"""

import logging
import os
import sys
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from kshot.errors import ImageError, MaskError
from kshot.io.folders import find_files
from kshot.io.high_bit_depth import select_low_bytes, stretch, to_rgb
from kshot.io.image_files import open_checked
from kshot.types import IGNORE_INDEX

if TYPE_CHECKING:  # the command reads images before torch, which takes seconds to import
    from torch import Tensor
    from typing_extensions import TypeIs

logger = logging.getLogger(__name__)

ImageSource = Union[str, os.PathLike[str], Image.Image, NDArray[Any], "Tensor"]
"""A path, a PIL image, a (H, W, 3) or (H, W) uint8 or uint16 array, or a (3, H, W) uint8 or [0, 1] float
tensor."""

MaskSource = Union[str, os.PathLike[str], Image.Image, NDArray[Any], "Tensor"]
"""A path, a PIL image, or a (H, W) array or tensor of bools or integers."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def read_image(source: ImageSource) -> Image.Image:
    """Return any accepted image as an upright 8-bit RGB image; one that already is so is returned itself.

    `kshot.io.high_bit_depth.to_rgb` converts other modes. Of a file with several images the first is read,
    with a warning. Raises ImageError, which names the file, for a file that is not an image, is damaged, or
    has more than MAX_PIXELS pixels.
    """
    name = _name(source)
    if _is_tensor(source):
        source = _array_from_tensor(source, name)
    if isinstance(source, np.ndarray):
        return _image_from_array(source, name)
    if isinstance(source, Image.Image):
        is_upright = source.getexif().get(ExifTags.Base.Orientation, 1) == 1
        if is_upright and source.mode == "RGB" and not source.has_transparency_data:
            return source
        try:
            return to_rgb(ImageOps.exif_transpose(source))
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
        is_sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        if image.format == "TIFF":
            is_sideways = False  # Pillow already reports the upright size
        return (image.width, image.height) if is_sideways else (image.height, image.width)


def read_mask(source: MaskSource, size: tuple[int, int], *, may_be_empty: bool = False) -> NDArray[np.bool_]:
    """Return the mask of an image of `size` as a bool array (H, W), True on the object.

    A mask holds 0 for background and one other value for the object; 255 beside that value marks pixels to
    ignore, which count as background. If it holds only 0 and 255, 255 is the object. Palette images are read
    as their indices. A file is turned upright by its own EXIF orientation; without one it is taken as drawn
    on the upright image.
    may_be_empty: accept a mask without an object, which marks its image as negative.
    Raises MaskError for another size, several object values, no object, or colour.
    """
    name = _name(source)
    values = _sized_values(source, name, size)
    objects = [int(value) for value in np.unique(values) if value != 0]
    if len(objects) > 1 and IGNORE_INDEX in objects:
        objects.remove(IGNORE_INDEX)
    if not objects and may_be_empty:
        return np.zeros(size, dtype=np.bool_)
    if not objects:
        raise MaskError(f"Mask {name} is empty: all its pixels are 0. Mark the object with 1 or 255.")
    if len(objects) > 1:
        raise MaskError(
            f"Mask {name} has {len(objects)} object values ({first_few(objects)}), but a support mask marks "
            "one object class. Name the values (--classes cup=1,plate=2 or fit(…, classes=…)), or keep "
            "one; if the mask was blurred or saved as JPEG, threshold it first."
        )
    return np.asarray(values == objects[0])


def read_label_map(
    source: MaskSource, size: tuple[int, int], classes: Mapping[str, int]
) -> dict[str, NDArray[np.bool_]]:
    """Return the masks of an image of `size`: a bool array (H, W) for each class that occurs, by name.

    classes: each class's value. 0 is the background; 255 marks pixels to ignore, which count as background.
    Raises MaskError for another size, a value that no class has, or colour.
    """
    given = list(classes.values())
    if len(set(given)) < len(given) or {0, IGNORE_INDEX} & set(given):
        raise MaskError(f"Classes have the values {given}; each needs its own, and not 0 or {IGNORE_INDEX}.")
    name = _name(source)
    values = _sized_values(source, name, size)
    unknown = sorted(set(np.unique(values).tolist()) - {0, IGNORE_INDEX, *classes.values()})
    if unknown:
        known = ", ".join(f"{value} ({name})" for name, value in classes.items())
        raise MaskError(
            f"Mask {name} has the value {first_few(unknown)}, which no class has: there are 0, 255 and "
            f"{known}. Name it with the others, or set it to 0; if the mask was blurred or saved as JPEG, "
            "threshold it first."
        )
    masks = {name: np.asarray(values == value) for name, value in classes.items()}
    return {name: mask for name, mask in masks.items() if mask.any()}


def list_images(paths: list[Path], results: Path | None = None) -> list[tuple[Path, Path]]:
    """Return the images in files and folders, each with its path relative to the given file or folder.

    Folders are searched recursively, in alphabetical order, for IMAGE_SUFFIXES; `io.folders.find_files` says
    what is passed over, such as the folder `results`. What it leaves out is logged in one line.
    Raises ImageError for a path that does not exist or a folder without images.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            searched = find_files(path, results)
            if left_out := searched.summary():
                logger.warning(left_out)
            inside = [p for p in searched.files if p.suffix.lower() in IMAGE_SUFFIXES]
            if not inside:
                raise ImageError(f"Folder {path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
            found += [(p, p.relative_to(path)) for p in inside]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise ImageError(f"There is no file or folder {path}.")
    return found


def first_few(values: list[int]) -> str:
    """Return the first five values as text, with "…" if there are more."""
    return ", ".join(map(str, values[:5])) + (" …" if len(values) > 5 else "")


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
        ImageOps.exif_transpose(image, in_place=True)  # a copy of a large image would cost memory
        if image.format not in ("PNG", "TIFF") or image.mode not in ("RGB", "RGBA"):
            return to_rgb(image)
        with open_checked(source, ImageError, name, decode=False, max_pixels=max_pixels) as low:
            if not select_low_bytes(low):
                return to_rgb(image)
            ImageOps.exif_transpose(low, in_place=True)
            return to_rgb(image, low)


def _is_tensor(source: object) -> "TypeIs[Tensor]":
    """Return whether an object is a tensor; there is none before torch is imported."""
    return "torch" in sys.modules and isinstance(source, sys.modules["torch"].Tensor)


def _array_from_tensor(tensor: "Tensor", name: str) -> NDArray[Any]:
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ImageError(f"Image {name} has shape {tuple(tensor.shape)}; a tensor must be (3, H, W).")
    is_float = tensor.is_floating_point()
    upright = tensor.detach().cpu().permute(1, 2, 0)
    array: NDArray[Any] = (upright.float() if is_float else upright).numpy()
    if is_float:
        if not ((array >= 0) & (array <= 1)).all():
            raise ImageError(f"Image {name} has values outside [0, 1]. Do not normalize it: kshot does.")
        array = (array * 255).round().astype(np.uint8)
    return array


def _image_from_array(array: NDArray[Any], name: str) -> Image.Image:
    is_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not is_shape or array.dtype not in (np.uint8, np.uint16) or 0 in array.shape:
        raise ImageError(
            f"Image {name} has shape {array.shape} and type {array.dtype}; "
            "an array must be (H, W, 3) or (H, W), uint8 or uint16, not empty."
        )
    array = stretch(array) if array.dtype == np.uint16 else array
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _sized_values(source: MaskSource, name: str, size: tuple[int, int]) -> NDArray[Any]:
    values = _mask_values(source, name)
    if values.shape != size:
        hint = (
            " If it was drawn on the image as stored, which lies on its side (EXIF), turn it like the image."
            if values.shape == size[::-1]
            else ""
        )
        raise MaskError(
            f"Mask {name} is {values.shape[1]} x {values.shape[0]} pixels, but its image is "
            f"{size[1]} x {size[0]}. Give a mask of the image's own size.{hint}"
        )
    return values


def _mask_values(source: MaskSource, name: str) -> NDArray[Any]:
    if _is_tensor(source):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or not (source.dtype == np.bool_ or np.issubdtype(source.dtype, np.integer)):
            raise MaskError(
                f"Mask {name} has shape {source.shape} and type {source.dtype}; "
                "it must be (H, W), of bools or integers."
            )
        return source
    if isinstance(source, Image.Image):
        return _values_in_image(source, name)
    with open_checked(source, MaskError) as image:
        return _values_in_image(image, name)


def _values_in_image(image: Image.Image, name: str) -> NDArray[Any]:
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise MaskError(
            f"Mask {name} is an image in mode {image.mode}; a mask has one channel of object values. "
            "Save it as greyscale, palette or 1-bit PNG."
        )
    return np.asarray(ImageOps.exif_transpose(image))
