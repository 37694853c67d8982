"""Decode uploaded images and masks, with checks before and after decoding."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from kshot.errors import MaskError
from kshot.io.image_files import open_checked
from kshot.io.images import read_image_bytes, read_label_map, read_mask
from kshot.types import LabelMap

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Accepted formats. Pillow reads many more, and every decoder is attack surface."""

SOURCE_NAME = "The file"
"""Name of an upload in error messages; the page shows the real name beside them."""


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an uploaded image as an upright RGB image.

    Raises ImageError if it is not an image or has more than `max_pixels` pixels.
    """
    return read_image_bytes(data, SOURCE_NAME, max_pixels=max_pixels, formats=FORMATS)


def decode_labels(
    data: bytes, size: tuple[int, int], values: Sequence[int], *, may_be_empty: bool = False
) -> LabelMap:
    """Decode an uploaded mask of an image of `size` into labels, uint8 (H, W): 0 or one of `values`.

    With one class, any mask that `kshot.io.images.read_mask` accepts; with several, a label map of `values`.
    Raises MaskError for any other mask, and for an empty one unless `may_be_empty`.
    """
    with open_checked(
        BytesIO(data), MaskError, SOURCE_NAME, max_pixels=size[0] * size[1], formats=FORMATS
    ) as mask:
        if len(values) == 1:
            return read_mask(mask, size, may_be_empty=may_be_empty).astype(np.uint8) * np.uint8(values[0])
        labels = np.zeros(size, np.uint8)
        for name, region in read_label_map(mask, size, {str(value): value for value in values}).items():
            labels[region] = int(name)
    if not labels.any() and not may_be_empty:
        raise MaskError("The mask is empty: all its pixels are 0. Mark each object with its class's value.")
    return labels
