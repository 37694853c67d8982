"""How sure an answer is, as one number to sort photographs by."""

import numpy as np
from numpy.typing import NDArray

from kshot.tiles import FloatMap

DETAIL = 512
"""Positions along the shorter side that are looked at."""

BORDER = 50
"""The border reaches this part, 1/50, of those positions beyond the object."""


def confidence(probability: FloatMap, mask: NDArray[np.bool_], threshold: float) -> float:
    """Give the mean certainty of an answer on its object and the border around it, in [0, 1].

    A pixel's certainty is 0 at the model's threshold, and 1 at the probabilities 0 and 1; where the threshold
    is 0.5 that is |2p - 1|. Where there is no object all pixels count. Arguments are (H, W).
    """
    step = max(1, min(mask.shape) // DETAIL)
    probability, mask = probability[::step, ::step], mask[::step, ::step]
    reach = np.where(probability > threshold, 1 - threshold, threshold)
    certainty = np.abs(probability - threshold) / reach
    if mask.any():
        certainty = certainty[_widened(mask, max(1, min(mask.shape) // BORDER))]
    return float(certainty.mean())


def _widened(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Add to a mask what lies within `by` positions of it, along either axis."""
    for axis in (0, 1):
        pads = [(0, 0), (0, 0)]
        pads[axis] = (by + 1, by)
        counts = np.cumsum(np.pad(mask, pads), axis=axis, dtype=np.int32)
        counts = np.moveaxis(counts, axis, 0)
        mask = np.moveaxis(counts[2 * by + 1 :] > counts[: -2 * by - 1], 0, axis)
    return mask
