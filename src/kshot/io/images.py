"""Pictures in: every kind of image and mask that kshot accepts is read here, by way of `image_files`.

Sizes are (height, width) in pixels. Nothing that a user gives is resized or thresholded in silence.
"""

import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from kshot.errors import ImageError, MaskError
from kshot.io.high_bit_depth import choose_lower_bytes, stretched, to_rgb
from kshot.io.image_files import opened
from kshot.types import IGNORE_INDEX

ImageSource = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""A path, a PIL image, a (H, W, 3) or (H, W) uint8 or uint16 array, or a (3, H, W) uint8 or [0, 1] float
tensor."""

MaskSource = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""A path, a PIL image, or a (H, W) array or tensor of bools or integers."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def read_image(source: ImageSource) -> Image.Image:
    """Read any accepted image as an upright 8-bit RGB picture; a picture that is one already is given back.

    `kshot.io.high_bit_depth.to_rgb` says what becomes of other modes. Of a file with several pictures it is
    the first, with a warning. Raises ImageError, which names the file, for what is not an image, cannot be
    decoded whole, or has more pixels than MAX_PIXELS.
    """
    name = _name(source)
    if isinstance(source, Tensor):
        source = _array_of_tensor(source, name)
    if isinstance(source, np.ndarray):
        return _picture_of_array(source, name)
    if isinstance(source, Image.Image):
        is_upright = source.getexif().get(ExifTags.Base.Orientation, 1) == 1
        if is_upright and source.mode == "RGB" and not source.has_transparency_data:
            return source
        try:
            return to_rgb(ImageOps.exif_transpose(source))
        except ValueError as problem:
            raise ImageError(f"Image {name} cannot be used: {problem}.") from problem
    return _read_file(source)


def read_embedded(
    content: bytes, name: str, *, max_pixels: int | None = None, formats: tuple[str, ...] | None = None
) -> Image.Image:
    """Read an image file's content as `read_image` does. Raises ImageError, which says `name`."""
    return _read_file(BytesIO(content), name, max_pixels, formats)


def read_size(source: ImageSource) -> tuple[int, int]:
    """Give the (height, width) of an image once it is upright; of a file only the head is read."""
    if not isinstance(source, str | os.PathLike):
        picture = read_image(source)
        return picture.height, picture.width
    with opened(source, ImageError, whole=False) as picture:
        is_on_its_side = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        if picture.format == "TIFF":
            is_on_its_side = False  # Pillow has turned these itself
        return (picture.width, picture.height) if is_on_its_side else (picture.height, picture.width)


def read_mask(source: MaskSource, size: tuple[int, int], *, may_be_empty: bool = False) -> NDArray[np.bool_]:
    """Read a support mask of an image of `size`, as a bool array (H, W), True on the object.

    A mask holds 0 for background and one other value for the object; 255 beside it marks pixels to
    ignore, which then count as background. A mask of 0 and 255 only has 255 for its object. Palette
    pictures are read as their indices. A file is turned upright by its own EXIF orientation, as photographs
    are; without one it was drawn on the upright photograph.
    may_be_empty: whether it may mark nothing, which says of its image: not this.
    Raises MaskError for another size, several object values, no object at all, or colour.
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
    """Read a mask of several classes of an image of `size`: a bool array (H, W) for each class that is there.

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
    """Expand files and folders to pairs of an image and its path relative to what was given.

    Folders are searched to their depths, in alphabetical order, for files with an image's suffix; what
    lies in the folder `results` is passed over there, because earlier masks are no photographs.
    Raises ImageError for a path that does not exist or a folder without images.
    """
    found: list[tuple[Path, Path]] = []
    for path in paths:
        if path.is_dir():
            candidates = (p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            left_out = None if results is None else results.resolve()
            inside = sorted(p for p in candidates if left_out not in p.resolve().parents)
            if not inside:
                raise ImageError(f"Folder {path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
            found += [(p, p.relative_to(path)) for p in inside]
        elif path.exists():
            found.append((path, Path(path.name)))
        else:
            raise ImageError(f"There is no file or folder {path}.")
    return found


def first_few(values: list[int]) -> str:
    """List the first five values, and say by "…" whether there are others."""
    return ", ".join(map(str, values[:5])) + (" …" if len(values) > 5 else "")


def _name(source: ImageSource) -> str:
    if isinstance(source, str | os.PathLike):
        return f"'{os.fspath(source)}'"
    return "(a picture in memory)" if isinstance(source, Image.Image) else f"({type(source).__name__})"


def _read_file(
    source: str | os.PathLike[str] | BytesIO,
    name: str = "",
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
) -> Image.Image:
    with opened(source, ImageError, name, max_pixels=max_pixels, formats=formats) as picture:
        ImageOps.exif_transpose(picture, in_place=True)  # of our own: a copy of a large one costs much
        if picture.format not in ("PNG", "TIFF") or picture.mode not in ("RGB", "RGBA"):
            return to_rgb(picture)
        with opened(source, ImageError, name, whole=False, max_pixels=max_pixels) as again:
            if not choose_lower_bytes(again):
                return to_rgb(picture)
            ImageOps.exif_transpose(again, in_place=True)
            return to_rgb(picture, again)


def _array_of_tensor(tensor: Tensor, name: str) -> NDArray[Any]:
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ImageError(f"Image {name} has shape {tuple(tensor.shape)}; a tensor must be (3, H, W).")
    array = tensor.detach().cpu().permute(1, 2, 0)
    if array.is_floating_point():
        if not bool(((array >= 0) & (array <= 1)).all()):
            raise ImageError(f"Image {name} has values outside [0, 1]. Don't normalise it: kshot does.")
        array = (array * 255).round().to(torch.uint8)
    return array.numpy()


def _picture_of_array(array: NDArray[Any], name: str) -> Image.Image:
    is_shape = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not is_shape or array.dtype not in (np.uint8, np.uint16) or 0 in array.shape:
        raise ImageError(
            f"Image {name} has shape {array.shape} and type {array.dtype}; "
            "an array must be (H, W, 3) or (H, W), uint8 or uint16, not empty."
        )
    array = stretched(array) if array.dtype == np.uint16 else array
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _sized_values(source: MaskSource, name: str, size: tuple[int, int]) -> NDArray[Any]:
    values = _mask_values(source, name)
    if values.shape != size:
        turned = (
            " If it was drawn on the photograph as it is stored, lying on its side (EXIF), turn it as the "
            "photograph is turned."
            if values.shape == size[::-1]
            else ""
        )
        raise MaskError(
            f"Mask {name} is {values.shape[1]} x {values.shape[0]} pixels, but its image is "
            f"{size[1]} x {size[0]}. Give a mask of the image's own size.{turned}"
        )
    return values


def _mask_values(source: MaskSource, name: str) -> NDArray[Any]:
    if isinstance(source, Tensor):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or not (source.dtype == np.bool_ or np.issubdtype(source.dtype, np.integer)):
            raise MaskError(
                f"Mask {name} has shape {source.shape} and type {source.dtype}; "
                "it must be (H, W), of bools or integers."
            )
        return source
    if isinstance(source, Image.Image):
        return _values_of_picture(source, name)
    with opened(source, MaskError) as picture:
        return _values_of_picture(picture, name)


def _values_of_picture(picture: Image.Image, name: str) -> NDArray[Any]:
    if picture.mode not in ("1", "L", "P", "I") and not picture.mode.startswith("I;16"):
        raise MaskError(
            f"Mask {name} is a picture in mode {picture.mode}; a mask has one channel of object values. "
            "Save it as greyscale, palette or 1-bit PNG."
        )
    return np.asarray(ImageOps.exif_transpose(picture))
