"""Write VOC's folders: palette masks of classes and of instances, and labelmap.txt.

Classes are numbered 1, 2, … in the order of labelmap.txt, whatever their values are elsewhere.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.annotations.writers.base import Format
from kshot.errors import KshotError
from kshot.io.files import encode_image
from kshot.io.overlays import label_image
from kshot.results import MAX_CLASSES, Instance, SegmentationResult


def voc_colour(number: int) -> tuple[int, int, int]:
    """Return the colour of a number in VOC's palette: its bits, spread over the three channels."""
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (number >> channel & 1) << (7 - place)
        number >>= 3
    return colour[0], colour[1], colour[2]


def _class_mask(_: str, result: SegmentationResult, instances: Sequence[Instance]) -> bytes:
    numbers = np.zeros(256, np.uint8)
    numbers[list(result.class_values)] = np.arange(1, len(result.class_values) + 1)
    return _png(numbers[result.labels])


def _object_mask(_: str, result: SegmentationResult, instances: Sequence[Instance]) -> bytes:
    if len(instances) > MAX_CLASSES:
        raise KshotError(
            f"The image has {len(instances)} instances, but VOC's masks hold {MAX_CLASSES}. Raise min_area "
            "(--instances), or choose another format."
        )
    numbers = np.zeros(result.labels.shape, np.uint8)
    for one in instances:
        left, top, right, bottom = one.box
        numbers[top:bottom, left:right][one.mask] = one.id
    return _png(numbers)


def _png(numbers: NDArray[np.uint8]) -> bytes:
    image: Image.Image = label_image(numbers, voc_colour)
    return encode_image(image, "PNG")


def _label_map(classes: Mapping[str, int]) -> bytes:
    lines = ["# label:color_rgb:parts:actions"]
    for number, name in enumerate(("background", *classes)):
        lines.append(f"{name}:{','.join(map(str, voc_colour(number)))}::")
    return ("\n".join(lines) + "\n").encode()


VOC = Format(
    image_files={
        "SegmentationClass/{name}.png": _class_mask,
        "SegmentationObject/{name}.png": _object_mask,
    },
    class_files={"labelmap.txt": _label_map},
)
