"""Resize images and masks to the network's square, and masks back, for every use but augmentation.

`squash` (HSNet) ignores the aspect. `pad` (PFENet, BAM) keeps it: the longer side fills the square, and the
rest below or to the right is ImageNet's mean colour in the image and 255 in the ground truth.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from kshot.types import IGNORE_INDEX, GroundTruth

IMAGENET_MEAN = (0.485, 0.456, 0.406)


@dataclass(frozen=True)
class Resize:
    """Resize to a square of `size` pixels: images bilinearly (PIL), masks by nearest neighbour (torch).

    These are HSNet's rules, so a number does not depend on who asks: a user, a benchmark or a training.
    """

    size: int
    fit: Literal["squash", "pad"] = "squash"

    def image(self, image: Image.Image) -> Tensor:
        """Resize an RGB image: (1, 3, size, size) in [0, 1]."""
        height, width = self._inner_size(image.height, image.width)
        resized = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].float() / 255
        if (height, width) == (self.size, self.size):
            return pixels
        canvas = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).repeat(1, 1, self.size, self.size)
        canvas[..., :height, :width] = pixels
        return canvas

    def mask(self, mask: NDArray[Any]) -> NDArray[Any]:
        """Resize a mask (H, W) of any type: (size, size), 255 where there is no image."""
        height, width = self._inner_size(*mask.shape)
        resized = mask[nearest(mask.shape[0], height)][:, nearest(mask.shape[1], width)]
        if resized.shape == (self.size, self.size):
            return resized
        canvas = np.full((self.size, self.size), IGNORE_INDEX, dtype=np.uint8)
        canvas[:height, :width] = resized
        return canvas

    def support_mask(self, mask: GroundTruth | NDArray[np.bool_]) -> Tensor:
        """Resize a support mask (H, W): (1, 1, size, size) float, 1 on the object and 0 elsewhere."""
        return torch.from_numpy(self.mask(mask) == 1).float()[None, None]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which a method must segment, so that the top left part is the image."""
        longer = max(height, width)
        return (height, width) if self.fit == "squash" else (longer, longer)

    def crop(self, mask: NDArray[Any], height: int, width: int) -> NDArray[Any]:
        """Cut the image's part out of a mask of `output_size`."""
        return mask[:height, :width]

    def _inner_size(self, height: int, width: int) -> tuple[int, int]:
        if self.fit == "squash":
            return self.size, self.size
        scale = self.size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))


def nearest(length: int, size: int) -> NDArray[np.intp]:
    """Return which of `length` pixels each of `size` pixels takes, as torch's `mode="nearest"` does."""
    positions = torch.arange(length, dtype=torch.float32)[None, None]
    return F.interpolate(positions, size, mode="nearest")[0, 0].numpy().astype(np.intp)
