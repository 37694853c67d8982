"""Read masks whose colours a label map names, as CVAT and VOC tools write them."""

from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from kshot.annotations.class_names import LABEL_MAP, ClassNames, Colour
from kshot.annotations.label_maps import mask_values
from kshot.errors import MaskError
from kshot.io.image_files import open_checked
from kshot.types import IGNORE_INDEX, GroundTruth

VOID: Colour = (224, 224, 192)
"""VOC's colour of pixels to ignore, unless the label map has it."""


def read_colour_mask(path: Path, classes: ClassNames) -> GroundTruth:
    """Return the class numbers of a mask (H, W), by its colours.

    Palette and grey masks with other colours are read as class numbers.
    Raises MaskError for a colour or number that the label map does not have.
    """
    with open_checked(path, MaskError) as image:
        numbers = {VOID: IGNORE_INDEX, **classes.colours}
        coloured = image.convert("RGB")
        codes = {_code(colour): number for colour, number in numbers.items()}
        used = _colours(coloured, len(numbers))
        if used and all(_code(colour) in codes for colour in used):
            return _replace(_codes(coloured), {_code(colour): codes[_code(colour)] for colour in used})
        if image.mode in ("1", "L", "P"):
            return _read_numbers(image, path, classes)
        unknown = sorted(set(_colours(coloured, coloured.width * coloured.height)) - numbers.keys())
        raise MaskError(
            f"Mask '{path}' has {len(unknown)} colours that {LABEL_MAP} does not have, such as {unknown[0]}. "
            "Add a line for each, or save the mask without smoothing."
        )


def _read_numbers(image: Image.Image, path: Path, classes: ClassNames) -> GroundTruth:
    values: GroundTruth = np.array(image, dtype=np.uint8)
    known = {*range(len(classes.names) + 1), IGNORE_INDEX}
    if unknown := [value for value in mask_values(values) if value not in known]:
        raise MaskError(
            f"Mask '{path}' has the value {unknown[0]}, but {LABEL_MAP} has {len(classes.names)} classes, "
            "none of its colour. Add it there."
        )
    if not classes.are_numbered:
        raise MaskError(
            f"Mask '{path}' has colours that {LABEL_MAP} does not have, and numbers are unclear, because its "
            "first line is not the background. Move the background to the top."
        )
    return values


def _colours(image: Image.Image, limit: int) -> list[Colour]:
    """Return the colours of an RGB image; none if there are more than `limit`."""
    return [cast(Colour, colour) for _, colour in image.getcolors(limit) or []]


def _code(colour: Colour) -> int:
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def _codes(image: Image.Image) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """Return each pixel's colour (H, W) as one number."""
    red, green, blue = np.moveaxis(np.asarray(image, dtype=np.uint32), 2, 0)
    codes: np.ndarray[tuple[int, int], np.dtype[np.uint32]] = red << 16 | green << 8 | blue
    return codes


def _replace(
    values: np.ndarray[tuple[int, int], np.dtype[np.uint32]], numbers: dict[int, int]
) -> GroundTruth:
    labels = np.zeros(values.shape, dtype=np.uint8)
    for value, number in numbers.items():
        labels[values == value] = number
    return labels
