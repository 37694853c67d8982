"""Read the masks of several classes from one source."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kshot.io.images import MaskSource, read_label_map, read_mask

ClassMasks = dict[str, NDArray[np.bool_]]
"""The mask of each class in an image, by class name."""

ClassValues = Mapping[str, int | None]
"""Each class's value in the masks; None for a single class, whose mask may have any value but 0."""


def read_class_masks(
    source: MaskSource,
    size: tuple[int, int],
    values: ClassValues,
    *,
    may_be_empty: bool = False,
    may_be_instances: bool = True,
) -> ClassMasks:
    """Return the masks (H, W) of the classes in `source`, for an image of `size` = (height, width).

    may_be_instances: several values of 16 or 32 bits are instances of a single class.
    Raises MaskError for a mask that cannot be used, or that is empty unless `may_be_empty`.
    """
    known = {name: value for name, value in values.items() if value is not None}
    if known:
        return read_label_map(source, size, known)
    mask = read_mask(source, size, may_be_empty=may_be_empty, may_be_instances=may_be_instances)
    return {name: mask for name in values if mask.any()}
