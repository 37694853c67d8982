"""Check that a model finds a labelled object in its own support image.

A model that fails there rarely finds the object elsewhere: docs/mistakes.md has the measurement. The check
costs as much as one more query.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.methods.tiling import around
from kshot.segmenter import Segmenter

LOW_IOU = 0.2
"""Support IoU below which good results on other images are rare."""


def support_iou(fitted: Segmenter, image: Image.Image, mask: NDArray[np.bool_]) -> float:
    """Segment a support image with itself as the only support; return the IoU with its mask (H, W).

    fitted: has this support only. mask: not empty. With tiles, the window of the support is segmented.
    """
    left, top, right, bottom = box = around(mask, fitted.tile_for(mask.shape[:2]))
    found, mask = fitted.predict(image.crop(box)).mask, mask[top:bottom, left:right]
    return float((found & mask).sum() / (found | mask).sum())


def low_iou_warning(iou: float, what: str, *, other_remedies: str = "") -> str | None:
    """Return one line that says what to try if `iou` is below LOW_IOU, else None. what: the object."""
    if iou >= LOW_IOU:
        return None
    return (
        f"The model hardly finds {what} in its own support image (IoU {iou:.2f} with the mask): expect poor "
        "results, unless the image shows more of the object than is labelled. Try an image that shows it "
        f"larger{other_remedies}."
    )
