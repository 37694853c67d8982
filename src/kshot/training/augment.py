"""Change an image and its label map alike: for the base learner, and for episodes.

What is drawn is apart from how it is applied: drawing depends on a key or a generator alone, so that neither
workers nor a resumed run can change what is trained on.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from kshot.types import IGNORE_INDEX, GroundTruth

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


class Colours(NamedTuple):
    """Changes of an image's colours. Factors of 1 and a shift of 0 change nothing.

    hue: shift as a share of the colour circle. noise: standard deviation in grey levels of 255, for
    `noise_key`. blur: radius in pixels at the image's final size.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    gamma: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    noise_key: int = 0


class Kind(NamedTuple):
    """What kind of image it is: in colours or grey, positive or negative. Both of a pair are of one kind."""

    grey: bool = False
    negative: bool = False


class View(NamedTuple):
    """How one image of an episode is seen: geometry, then colours.

    scale: 1 squashes the whole image to the network's square, 2 shows a quarter of it. stretch: factor of the
    width over that of the height. degrees: it is turned by. left, top: where the square lies, from 0 to 1 of
    the room there is.
    """

    scale: float = 1.0
    stretch: float = 1.0
    degrees: float = 0.0
    flip: bool = False
    left: float = 0.5
    top: float = 0.5
    colours: Colours = Colours()


class ViewRanges(NamedTuple):
    """How far views may differ from the image as it is."""

    scale: tuple[float, float] = (0.8, 1.6)
    stretch: float = 1.25
    degrees: float = 10.0
    colour: float = 1.0
    """Strength of the changes of colour; 0: none."""


GENTLE = ViewRanges()
"""For objects in photographs, which stand upright and have their colours."""

STRONG = ViewRanges(scale=(0.7, 2.5), stretch=1.5, degrees=90.0)
"""For regions, textures and small items, which lie in any direction."""


def draw_view(random: np.random.Generator, ranges: ViewRanges) -> View:
    """Draw a view."""
    low, high = (math.log(value) for value in ranges.scale)
    wide = math.log(ranges.stretch)
    return View(
        scale=math.exp(random.uniform(low, high)),
        stretch=math.exp(random.uniform(-wide, wide)),
        degrees=random.uniform(-ranges.degrees, ranges.degrees) if random.random() < 0.5 else 0.0,
        flip=bool(random.random() < 0.5),
        left=random.random(),
        top=random.random(),
        colours=draw_colours(random, ranges.colour),
    )


def draw_kind(random: np.random.Generator) -> Kind:
    """Draw a kind of image: one in five is grey, one in ten a negative."""
    return Kind(grey=bool(random.random() < 0.2), negative=bool(random.random() < 0.1))


def apply_kind(image: Image.Image, kind: Kind) -> Image.Image:
    """Make an RGB image one of a kind."""
    if kind.grey:
        image = image.convert("L").convert("RGB")
    return ImageOps.invert(image) if kind.negative else image


def draw_colours(random: np.random.Generator, strength: float) -> Colours:
    """Draw changes of colour."""

    def factor(most: float) -> float:
        return math.exp(random.uniform(-most, most) * strength)

    return Colours(
        brightness=factor(0.3),
        contrast=factor(0.3),
        saturation=factor(0.5),
        hue=random.uniform(-0.04, 0.04) * strength if random.random() < 0.5 else 0.0,
        gamma=factor(0.25),
        blur=random.uniform(0.2, 1.2) * min(strength, 1.0) if random.random() < 0.25 else 0.0,
        noise=random.uniform(1.0, 10.0) * strength if random.random() < 0.25 else 0.0,
        noise_key=int(random.integers(2**31)),
    )


def apply_view(
    image: Image.Image, labels: GroundTruth, view: View, size: int
) -> tuple[Image.Image, GroundTruth]:
    """Show an image and its labels (H, W) in a view: the network's square of `size` pixels, and its labels.

    A view without changes is the squashed image, as the model sees it in use. What lies outside the image has
    ImageNet's mean colour, and no label (255).
    """
    turned = math.sqrt(view.stretch)
    sides = round(size * view.scale * turned), round(size * view.scale / turned)
    small = image.resize(sides, Image.Resampling.BILINEAR)
    mask = Image.fromarray(labels).resize(sides, Image.Resampling.NEAREST)
    if view.degrees:
        small = small.rotate(view.degrees, Image.Resampling.BILINEAR, fillcolor=MEAN_COLOUR)
        mask = mask.rotate(view.degrees, Image.Resampling.NEAREST, fillcolor=IGNORE_INDEX)
    if view.flip:
        small, mask = ImageOps.mirror(small), ImageOps.mirror(mask)
    box = _crop_box(sides, view.left, view.top, size)
    seen = _cut(small, box, MEAN_COLOUR)
    return apply_colours(seen, view.colours), np.array(_cut(mask, box, IGNORE_INDEX))


def apply_colours(image: Image.Image, colours: Colours) -> Image.Image:
    """Change an RGB image's colours."""
    if colours.blur > 0:
        image = image.filter(ImageFilter.GaussianBlur(colours.blur))
    if colours.hue:
        hue, *others = image.convert("HSV").split()
        shift = round(256 * colours.hue)
        image = Image.merge("HSV", (hue.point([(v + shift) % 256 for v in range(256)]), *others))
        image = image.convert("RGB")
    for enhance, factor in (
        (ImageEnhance.Color, colours.saturation),
        (ImageEnhance.Brightness, colours.brightness),
        (ImageEnhance.Contrast, colours.contrast),
    ):
        if factor != 1:
            image = enhance(image).enhance(factor)
    if colours.gamma != 1:
        image = image.point([round(255 * (v / 255) ** colours.gamma) for v in range(256)] * 3)
    if colours.noise:
        random = np.random.default_rng(colours.noise_key)
        noise = random.normal(0, colours.noise, (image.height, image.width, 1))
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return image


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


def apply_changes(
    picture: Image.Image, labels: GroundTruth, changes: Changes, crop: int
) -> tuple[Tensor, Tensor]:
    """Scale, turn, blur, flip and crop: image (3, crop, crop) in [0, 1] and labels (crop, crop) long.

    What lies outside the photograph has ImageNet's mean colour, and no label (255).
    """
    mask = Image.fromarray(labels)
    factor = changes.scale * crop / min(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    mask = mask.resize(size, Image.Resampling.NEAREST)
    picture = picture.rotate(changes.degrees, Image.Resampling.BILINEAR, fillcolor=MEAN_COLOUR)
    mask = mask.rotate(changes.degrees, Image.Resampling.NEAREST, fillcolor=IGNORE_INDEX)
    if changes.blur > 0:
        picture = picture.filter(ImageFilter.GaussianBlur(changes.blur))
    if changes.flip:
        picture, mask = ImageOps.mirror(picture), ImageOps.mirror(mask)
    box = _crop_box(size, changes.left, changes.top, crop)
    return to_tensor(_cut(picture, box, MEAN_COLOUR)), _to_labels(_cut(mask, box, IGNORE_INDEX))


def squash(picture: Image.Image, labels: GroundTruth, size: int) -> tuple[Tensor, Tensor]:
    """Squash a photograph and its label map to a square, unchanged otherwise; types as `apply_changes`."""
    small = picture.resize((size, size), Image.Resampling.BILINEAR)
    return to_tensor(small), _to_labels(
        Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST)
    )


def _crop_box(size: tuple[int, int], left: float, top: float, crop: int) -> tuple[int, int, int, int]:
    """Place the crop; where the image is smaller, it reaches beyond its edges."""
    x, y = round(left * (size[0] - crop)), round(top * (size[1] - crop))
    return x, y, x + crop, y + crop


def _cut(picture: Image.Image, box: tuple[int, int, int, int], fill: int | tuple[int, ...]) -> Image.Image:
    canvas = Image.new(picture.mode, (box[2] - box[0], box[3] - box[1]), fill)
    canvas.paste(picture, (-box[0], -box[1]))
    return canvas


def to_tensor(picture: Image.Image) -> Tensor:
    """Make a tensor (3, H, W) in [0, 1] of an RGB image."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def _to_labels(mask: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(mask)).long()
