"""Read the masks of datasets: class numbers, or black and white."""

from collections.abc import Container
from pathlib import Path

import numpy as np

from kshot.errors import MaskError
from kshot.io.image_files import open_checked
from kshot.io.mask_values import find_object, first_few, read_mask_values
from kshot.types import IGNORE_INDEX, GroundTruth

BRIGHT = 128
"""Grey level from which a pixel of a black and white mask is the object (FSS-1000)."""


def read_index_mask(path: Path, allowed: Container[int]) -> GroundTruth:
    """Return a mask of class numbers; palette images are read as their indices.

    Raises MaskError for colour, or for a value that is neither allowed nor 255.
    """
    values = read_mask_values(path, f"'{path}'").values
    found = mask_values(values) if values.dtype == np.uint8 else np.unique(values).tolist()
    unknown = [value for value in found if value not in allowed and value != IGNORE_INDEX]
    if unknown:
        raise MaskError(
            f"Mask '{path}' has unknown values ({first_few(unknown)}): no class has such a number."
        )
    return values.astype(np.uint8, copy=False)


def read_object_mask(path: Path, *, may_be_full: bool = False) -> GroundTruth:
    """Return a mask of one object, as `kshot.io.images.read_mask` reads it: 0, 1, and 255 for ignored pixels.

    may_be_full: accept a mask without background. Raises MaskError for an ambiguous mask.
    """
    name = f"'{path}'"
    return find_object(read_mask_values(path, name), name, may_be_empty=True, may_be_full=may_be_full)


def mask_values(values: GroundTruth) -> list[int]:
    """Return the distinct values in a mask of class numbers, ascending."""
    found: list[int] = np.flatnonzero(np.bincount(values.ravel())).tolist()  # np.unique would sort all pixels
    return found


def read_binary_mask(path: Path) -> GroundTruth:
    """Return a black and white mask, greyscale or colour: 1 where it is BRIGHT or brighter."""
    with open_checked(path, MaskError) as image:
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):  # clipped if it were converted
            raise MaskError(f"Mask '{path}' is an image in mode {image.mode}; save it with 8 bits.")
        grey = np.asarray(image.convert("L"))
    ground_truth = np.zeros(grey.shape, dtype=np.uint8)
    ground_truth[grey >= BRIGHT] = 1
    return ground_truth


def select_class(values: GroundTruth, number: int) -> GroundTruth:
    """Return the ground truth of one class from a mask of class numbers; 255 stays."""
    ground_truth = np.zeros_like(values)
    ground_truth[values == number] = 1
    ground_truth[values == IGNORE_INDEX] = IGNORE_INDEX
    return ground_truth
