"""Whether a model finds a labelled object in the very photograph that it was labelled in.

Where it does not, it hardly finds the object elsewhere: docs/mistakes.md has the measurement. A check costs
as much as one more query.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.methods.tiling import around
from kshot.segmenter import Segmenter

LOW = 0.2
"""IoU of a support with its own mask below which good answers are rare."""


def own_iou(fitted: Segmenter, picture: Image.Image, mask: NDArray[np.bool_]) -> float:
    """Segment a support's picture by that support: the IoU with its mask (H, W), which is not empty.

    fitted: knows this support alone. Of a picture in tiles, the window of the support is segmented.
    """
    left, top, right, bottom = box = around(mask, fitted.tile_for(mask.shape[:2]))
    found, mask = fitted.predict(picture.crop(box)).mask, mask[top:bottom, left:right]
    return float((found & mask).sum() / (found | mask).sum())


def hint(iou: float, what: str, *, other_remedies: str = "") -> str | None:
    """Say what to try if `what` is not found in its own photograph; None if it is. One line."""
    if iou >= LOW:
        return None
    return (
        f"In its own photograph the answer for {what} agrees little with its mask (IoU {iou:.2f}): expect "
        "little elsewhere, unless the photograph shows more of it than is labelled. Try one that shows it "
        f"larger{other_remedies}."
    )
