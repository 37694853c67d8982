"""Change a photograph and its label map alike, for the base learner's training.

What is drawn is apart from how it is applied: `draw_changes` depends on its key alone, so that neither
workers nor a resumed run can change what is trained on.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from kshot.annotations.label_pictures import Truth
from kshot.episode import IGNORE

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean colour, which fills what lies outside a photograph."""


class Changes(NamedTuple):
    """What happens to one photograph.

    scale: factor of its size, after its shorter side was brought to the crop's. degrees: it is turned by.
    blur: radius in pixels, 0 for none. left, top: where the crop lies, from 0 to 1 of the room there is.
    """

    scale: float
    degrees: float
    blur: float
    flip: bool
    left: float
    top: float


def draw_changes(
    key: tuple[int, ...],
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    degrees: float = 10.0,
    blur: float = 0.5,
) -> Changes:
    """Draw a photograph's changes by a key of integers. blur: how often it is blurred, 0 to 1."""
    random = np.random.default_rng(key)
    low, high = (math.log(value) for value in scale)
    return Changes(
        scale=math.exp(random.uniform(low, high)),
        degrees=random.uniform(-degrees, degrees),
        blur=random.uniform(0.1, 1.5) if random.random() < blur else 0.0,
        flip=bool(random.random() < 0.5),
        left=random.random(),
        top=random.random(),
    )


def apply_changes(picture: Image.Image, labels: Truth, changes: Changes, crop: int) -> tuple[Tensor, Tensor]:
    """Scale, turn, blur, flip and crop: image (3, crop, crop) in [0, 1] and labels (crop, crop) long.

    What lies outside the photograph has ImageNet's mean colour, and no label (255).
    """
    mask = Image.fromarray(labels)
    factor = changes.scale * crop / min(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    mask = mask.resize(size, Image.Resampling.NEAREST)
    picture = picture.rotate(changes.degrees, Image.Resampling.BILINEAR, fillcolor=MEAN_COLOUR)
    mask = mask.rotate(changes.degrees, Image.Resampling.NEAREST, fillcolor=IGNORE)
    if changes.blur > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(changes.blur))
    if changes.flip:
        picture, mask = ImageOps.mirror(picture), ImageOps.mirror(mask)
    box = _crop_box(size, changes, crop)
    return _to_image(_cut(picture, box, MEAN_COLOUR)), _to_labels(_cut(mask, box, IGNORE))


def squash(picture: Image.Image, labels: Truth, size: int) -> tuple[Tensor, Tensor]:
    """Squash a photograph and its label map to a square, unchanged otherwise; types as `apply_changes`."""
    small = picture.resize((size, size), Image.Resampling.BILINEAR)
    return _to_image(small), _to_labels(
        Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST)
    )


def _crop_box(size: tuple[int, int], changes: Changes, crop: int) -> tuple[int, int, int, int]:
    """Place the crop; where the photograph is smaller, it reaches beyond its edges."""
    left = round(changes.left * (size[0] - crop))
    top = round(changes.top * (size[1] - crop))
    return left, top, left + crop, top + crop


def _cut(picture: Image.Image, box: tuple[int, int, int, int], fill: int | tuple[int, ...]) -> Image.Image:
    canvas = Image.new(picture.mode, (box[2] - box[0], box[3] - box[1]), fill)
    canvas.paste(picture, (-box[0], -box[1]))
    return canvas


def _to_image(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _to_labels(mask: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(mask)).long()
