"""What goes into a method and what comes out.

Axis letters: B batch, K shots, C channels, H W height and width in pixels.
Masks are 1 on the foreground and 0 elsewhere; logits have two channels, background first.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # files and options are checked before torch, which takes seconds to import
    from torch import Tensor

IGNORE_INDEX = 255
"""Mask value of pixels that are neither foreground nor background (object borders in VOC)."""


GroundTruth = NDArray[np.uint8]
"""A mask (H, W) to compare with: 1 on the object, 0 elsewhere, 255 where nobody knows."""


FloatMap = NDArray[np.float32]
"""Values of pixels, (H, W)."""

LabelMap = NDArray[np.uint8]
"""(H, W): 0 on the background, n on the n-th class."""


class Support(NamedTuple):
    """One encoded shot: what the method's `support_features` returned for its image, and its mask.

    mask: (B, 1, H, W) float in [0, 1].
    """

    features: Any
    mask: "Tensor"


class Prediction(NamedTuple):
    """One forward pass of a matching network: logits (B, 2, h, w) at decoder resolution.

    final: the prediction. A network that lacks a step leaves its field None: `cls` and `sem` are the
    matches by each backbone, `combined` the first pass, `second` the second pass, and `base_map`
    (B, 1, h, w) the probability in [0, 1] that a pixel belongs to a base class.
    """

    final: "Tensor"
    cls: "Tensor | None" = None
    sem: "Tensor | None" = None
    combined: "Tensor | None" = None
    second: "Tensor | None" = None
    base_map: "Tensor | None" = None


class Segmentation(NamedTuple):
    """What K shots find in B queries, at the size that was asked for.

    mask: (B, H, W) bool. probability: (B, H, W) in [0, 1], the mean over the shots; with several
    shots the mask is their vote, so it can differ from `probability > threshold` at a few pixels.
    first_pass, second_pass, base_map: (B, H, W) in [0, 1], None where the method has no such step.
    """

    mask: "Tensor"
    probability: "Tensor"
    first_pass: "Tensor | None" = None
    second_pass: "Tensor | None" = None
    base_map: "Tensor | None" = None
