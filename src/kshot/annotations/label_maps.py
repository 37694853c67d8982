"""Label pictures: which pixels show which class, read from the kinds of file that datasets keep."""

from collections.abc import Container
from pathlib import Path

import numpy as np

from kshot.errors import MaskError
from kshot.io.image_files import opened
from kshot.io.images import first_few
from kshot.types import IGNORE_INDEX, GroundTruth

BRIGHT = 128
"""Grey level from which a pixel of a black and white mask is the object (FSS-1000)."""


def read_index_mask(path: Path, allowed: Container[int]) -> GroundTruth:
    """Read a mask whose values are class numbers; palette pictures are read as their indices.

    Raises MaskError for a colour picture, or a value that is neither allowed nor 255.
    """
    values = _read_grey(path)
    unknown = [value for value in values_in(values) if value not in allowed and value != IGNORE_INDEX]
    if unknown:
        raise MaskError(
            f"Mask '{path}' has unknown values ({first_few(unknown)}): no class has such a number."
        )
    return values


def values_in(values: GroundTruth) -> list[int]:
    """Give the values that a mask of class numbers has, ascending."""
    found: list[int] = np.flatnonzero(np.bincount(values.ravel())).tolist()  # np.unique would sort all pixels
    return found


def read_bright_mask(path: Path) -> GroundTruth:
    """Read a black and white mask, greyscale or colour: 1 where it is bright."""
    with opened(path, MaskError) as picture:
        grey = np.asarray(picture.convert("L"))
    ground_truth = np.zeros(grey.shape, dtype=np.uint8)
    ground_truth[grey >= BRIGHT] = 1
    return ground_truth


def pick_class(values: GroundTruth, number: int) -> GroundTruth:
    """Turn a mask of class numbers into the ground truth of one class; 255 stays."""
    ground_truth = np.zeros_like(values)
    ground_truth[values == number] = 1
    ground_truth[values == IGNORE_INDEX] = IGNORE_INDEX
    return ground_truth


def _read_grey(path: Path) -> GroundTruth:
    with opened(path, MaskError) as picture:
        if picture.mode not in ("1", "L", "P"):
            raise MaskError(
                f"Mask '{path}' has unknown colours (mode {picture.mode}): a mask holds class numbers. "
                "Save it as a palette or greyscale PNG."
            )
        return np.array(picture, dtype=np.uint8)
