"""What strangers send: photographs and masks as bytes, checked before they are decoded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from kshot.errors import ImageError, KshotError, MaskError
from kshot.images import read_image, read_label_map, read_mask
from kshot.segmenter import LabelMap

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Pillow reads dozens more, and each is a way in."""


def read_photograph(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an uploaded photograph whole, as an upright RGB picture.

    Raises ImageError for what is no photograph, or has more pixels than are allowed.
    """
    with _decoded(data, max_pixels, ImageError) as picture:
        return read_image(picture)


def read_labels(data: bytes, size: tuple[int, int], values: Sequence[int]) -> LabelMap:
    """Decode an uploaded mask of a photograph of `size`: uint8 (H, W), 0 or one of the classes' values.

    Of a single class any mask will do that `kshot.images.read_mask` reads; of several, it has their values.
    Raises MaskError for what is no such mask, or an empty one.
    """
    with _decoded(data, size[0] * size[1], MaskError) as picture:
        if len(values) == 1:
            return read_mask(picture, size).astype(np.uint8) * np.uint8(values[0])
        labels = np.zeros(size, np.uint8)
        for name, mask in read_label_map(picture, size, {str(value): value for value in values}).items():
            labels[mask] = int(name)
    if not labels.any():
        raise MaskError(
            "The mask is empty: all its pixels are 0. Mark the objects with their classes' values."
        )
    return labels


@contextmanager
def _decoded(data: bytes, max_pixels: int, error: type[KshotError]) -> Iterator[Image.Image]:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > max_pixels:
                raise error(
                    f"The picture is {picture.width} x {picture.height} pixels; at most {max_pixels:,} "
                    "are taken. Make it smaller, or use `kshot segment --tile`."
                )
            picture.load()
            yield picture
    except UnidentifiedImageError:
        raise error(f"The file is not a picture that can be read ({', '.join(FORMATS)}).") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as problem:
        if isinstance(problem, KshotError):
            raise
        raise error(f"The file cannot be read as a picture: {problem}.") from problem
