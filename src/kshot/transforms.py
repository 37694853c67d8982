"""How a protocol brings a photograph into the network's square, and the answer back out.

`squash` (HSNet) ignores the aspect. `pad` (PFENet, BAM) keeps it: the longer side fills the square, and the
rest below or to the right is ImageNet's mean colour in the image and 255 in the ground truth.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from kshot.annotations.label_maps import GroundTruth
from kshot.types import IGNORE_INDEX

IMAGENET_MEAN = (0.485, 0.456, 0.406)


@dataclass(frozen=True)
class Frame:
    """A square of `size` pixels, and how an image is fitted into it."""

    size: int
    fit: Literal["squash", "pad"]

    def image(self, picture: Image.Image) -> Tensor:
        """Fit a picture: (1, 3, size, size) in [0, 1]."""
        height, width = self._inner(picture.height, picture.width)
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        canvas = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).repeat(1, 1, self.size, self.size)
        canvas[..., :height, :width] = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
        return canvas

    def ground_truth(self, ground_truth: GroundTruth) -> GroundTruth:
        """Fit a ground truth (H, W) by nearest neighbour: (size, size), 255 where there is no image."""
        inner = self._inner(*ground_truth.shape)
        nearest = F.interpolate(torch.from_numpy(ground_truth)[None, None].float(), inner, mode="nearest")
        canvas = np.full((self.size, self.size), IGNORE_INDEX, dtype=np.uint8)
        canvas[: inner[0], : inner[1]] = nearest[0, 0].numpy()
        return canvas

    def support_mask(self, ground_truth: GroundTruth) -> Tensor:
        """Fit a support's ground_truth: (1, 1, size, size), 1 on the object and 0 elsewhere."""
        return torch.from_numpy(self.ground_truth(ground_truth) == 1).float()[None, None]

    def answer_size(self, height: int, width: int) -> tuple[int, int]:
        """Say how large a method's answer must be, so that its top left part is the photograph."""
        longer = max(height, width)
        return (height, width) if self.fit == "squash" else (longer, longer)

    def crop(self, answer: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
        """Cut the photograph's part out of an answer of `answer_size`."""
        return answer[:height, :width]

    def _inner(self, height: int, width: int) -> tuple[int, int]:
        if self.fit == "squash":
            return self.size, self.size
        scale = self.size / max(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))
