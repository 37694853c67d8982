"""What strangers send: photographs and masks as bytes, checked before they are decoded."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from kshot.errors import MaskError
from kshot.io.image_files import opened
from kshot.io.images import read_embedded, read_label_map, read_mask
from kshot.types import LabelMap

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Pillow reads dozens more, and each is a way in."""

THE_FILE = "The file"
"""What messages call it: the page shows its name beside them."""


def read_photograph(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an uploaded photograph whole, as an upright RGB picture.

    Raises ImageError for what is no photograph, or has more pixels than are allowed.
    """
    return read_embedded(data, THE_FILE, max_pixels=max_pixels, formats=FORMATS)


def read_labels(
    data: bytes, size: tuple[int, int], values: Sequence[int], *, may_be_empty: bool = False
) -> LabelMap:
    """Decode an uploaded mask of a photograph of `size`: uint8 (H, W), 0 or one of the classes' values.

    For a single class any mask that `kshot.io.images.read_mask` reads; for several, their values.
    Raises MaskError for what is no such mask, or an empty one unless that may be.
    """
    with opened(BytesIO(data), MaskError, THE_FILE, max_pixels=size[0] * size[1], formats=FORMATS) as picture:
        if len(values) == 1:
            return read_mask(picture, size, may_be_empty=may_be_empty).astype(np.uint8) * np.uint8(values[0])
        labels = np.zeros(size, np.uint8)
        for name, mask in read_label_map(picture, size, {str(value): value for value in values}).items():
            labels[mask] = int(name)
    if not labels.any() and not may_be_empty:
        raise MaskError(
            "The mask is empty: all its pixels are 0. Mark the objects with their classes' values."
        )
    return labels
