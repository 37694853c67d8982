"""Augmentation of an image and its label map, for the base learner and for episodes.

Drawing the parameters is separate from applying them. Drawing depends on a key or a generator alone, so
workers and resumed runs see the same augmentations.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from kshot.types import IGNORE_INDEX, GroundTruth

MEAN_COLOR = (124, 116, 104)
"""ImageNet's mean color, the fill outside of an image."""


class CropAugmentation(NamedTuple):
    """Parameters of one training crop of the base learner.

    scale: factor of the image's size, after its shorter side was resized to the crop's. degrees: rotation.
    blur: radius in pixels, 0 for none. left, top: position of the crop, from 0 to 1 of the free range.
    """

    scale: float
    degrees: float
    blur: float
    flip: bool
    left: float
    top: float


class ColorJitter(NamedTuple):
    """Parameters of a color change. Factors of 1 and a shift of 0 change nothing.

    hue: shift as a share of the color circle. noise: standard deviation in grey levels of 255, drawn by
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


class ImageKind(NamedTuple):
    """Kind of image: color or grey, positive or negative. Both images of a pair are of one kind."""

    grey: bool = False
    negative: bool = False


class View(NamedTuple):
    """Parameters of one view of an image of an episode: geometry, then colors.

    scale: 1 squashes the whole image to the network's square, 2 shows a quarter of it. stretch: factor of the
    width over that of the height. degrees: rotation. left, top: position of the square, from 0 to 1 of the
    free range.
    """

    scale: float = 1.0
    stretch: float = 1.0
    degrees: float = 0.0
    flip: bool = False
    left: float = 0.5
    top: float = 0.5
    color: ColorJitter = ColorJitter()


class ViewRanges(NamedTuple):
    """Ranges that views are drawn from."""

    scale: tuple[float, float] = (0.8, 1.6)
    stretch: float = 1.25
    degrees: float = 10.0
    color: float = 1.0
    """Strength of the color changes; 0: none."""


GENTLE = ViewRanges()
"""For objects in photographs, which stand upright and have typical colors."""

STRONG = ViewRanges(scale=(0.7, 2.5), stretch=1.5, degrees=90.0)
"""For regions, textures and small items, which can have any direction."""


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
        color=draw_color_jitter(random, ranges.color),
    )


def draw_kind(random: np.random.Generator) -> ImageKind:
    """Draw a kind of image: one in five is grey, one in ten a negative."""
    return ImageKind(grey=bool(random.random() < 0.2), negative=bool(random.random() < 0.1))


def apply_kind(image: Image.Image, kind: ImageKind) -> Image.Image:
    """Convert an RGB image to a kind."""
    if kind.grey:
        image = image.convert("L").convert("RGB")
    return ImageOps.invert(image) if kind.negative else image


def draw_color_jitter(random: np.random.Generator, strength: float) -> ColorJitter:
    """Draw a color change."""

    def factor(most: float) -> float:
        return math.exp(random.uniform(-most, most) * strength)

    return ColorJitter(
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
    """Return a view of an image and its labels (H, W): both squares of `size` pixels.

    The default view is the squashed image, as the model gets it at inference. Outside of the image the color
    is ImageNet's mean, and the labels are 255.
    """
    stretch = math.sqrt(view.stretch)
    sides = round(size * view.scale * stretch), round(size * view.scale / stretch)
    warped, mask = _warp(image, labels, sides, view, size)
    return apply_color_jitter(warped, view.color), np.array(mask)


def apply_color_jitter(image: Image.Image, jitter: ColorJitter) -> Image.Image:
    """Change the colors of an RGB image."""
    if jitter.blur > 0:
        image = image.filter(ImageFilter.GaussianBlur(jitter.blur))
    if jitter.hue:  # a shift of 0 would round all colors by way of HSV
        image = F.adjust_hue(image, jitter.hue)
    image = F.adjust_saturation(image, jitter.saturation)
    image = F.adjust_brightness(image, jitter.brightness)
    image = F.adjust_contrast(image, jitter.contrast)
    image = F.adjust_gamma(image, jitter.gamma)
    if jitter.noise:
        random = np.random.default_rng(jitter.noise_key)
        noise = random.normal(0, jitter.noise, (image.height, image.width, 1))
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return image


def draw_augmentation(
    key: tuple[int, ...],
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    degrees: float = 10.0,
    blur: float = 0.5,
) -> CropAugmentation:
    """Draw a crop's augmentation by a key of integers. blur: how often it is blurred, 0 to 1."""
    random = np.random.default_rng(key)
    low, high = (math.log(value) for value in scale)
    return CropAugmentation(
        scale=math.exp(random.uniform(low, high)),
        degrees=random.uniform(-degrees, degrees),
        blur=random.uniform(0.1, 1.5) if random.random() < blur else 0.0,
        flip=bool(random.random() < 0.5),
        left=random.random(),
        top=random.random(),
    )


def apply_augmentation(
    image: Image.Image, labels: GroundTruth, augmentation: CropAugmentation, crop: int
) -> tuple[Tensor, Tensor]:
    """Scale, rotate, flip, crop and blur: image (3, crop, crop) in [0, 1] and labels (crop, crop) long.

    Outside of the image the color is ImageNet's mean, and the labels are 255.
    """
    factor = augmentation.scale * crop / min(image.size)
    sides = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    warped, mask = _warp(image, labels, sides, augmentation, crop)
    if augmentation.blur > 0:
        warped = warped.filter(ImageFilter.GaussianBlur(augmentation.blur))
    return to_tensor(warped), torch.from_numpy(np.array(mask)).long()


def _warp(
    image: Image.Image,
    labels: GroundTruth,
    sides: tuple[int, int],
    geometry: View | CropAugmentation,
    size: int,
) -> tuple[Image.Image, Image.Image]:
    """Resize to `sides` (width, height), rotate, flip, and crop a square, which may reach outside."""
    left, top = round(geometry.left * (sides[0] - size)), round(geometry.top * (sides[1] - size))
    warped = []
    for one, resampling, fill in (
        (image, Image.Resampling.BILINEAR, MEAN_COLOR),
        (Image.fromarray(labels), Image.Resampling.NEAREST, IGNORE_INDEX),
    ):
        one = one.resize(sides, resampling)
        if geometry.degrees:
            one = one.rotate(geometry.degrees, resampling, fillcolor=fill)
        if geometry.flip:
            one = ImageOps.mirror(one)
        square = Image.new(one.mode, (size, size), fill)
        square.paste(one, (-left, -top))
        warped.append(square)
    return warped[0], warped[1]


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as a tensor (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
