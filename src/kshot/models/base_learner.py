"""The base learner: a PSPNet trained on the base classes, then frozen (eq. 13).

Its backbone is B_sem and computes the second feature pyramid; its head H_cls finds the base classes.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn

from kshot.models import kernels
from kshot.models.backbones import Backbone
from kshot.models.hypercorrelation import resize
from kshot.models.kernels.pooling import convolve_pooled

POOL_BINS = (1, 2, 3, 6)
HEAD_CHANNELS = 512
DROPOUT = 0.1


class PyramidPoolingHead(nn.Module):
    """PSPNet's head (Zhao et al. 2017): pool at four scales, concatenate, classify each position.

    Class 0 is the background. Frozen unless `trainable`, like a Backbone.
    """

    def __init__(self, in_channels: int, num_classes: int, *, trainable: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.trainable = trainable
        pooled = in_channels // len(POOL_BINS)
        self.pools = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(bins),
                nn.Conv2d(in_channels, pooled, 1, bias=False),
                nn.BatchNorm2d(pooled),
                nn.ReLU(),
            )
            for bins in POOL_BINS
        )
        joined = in_channels + len(POOL_BINS) * pooled
        self.classify = nn.Sequential(
            nn.Conv2d(joined, HEAD_CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(HEAD_CHANNELS),
            nn.ReLU(),
            nn.Dropout2d(DROPOUT),
            nn.Conv2d(HEAD_CHANNELS, num_classes, 1),
        )
        if not trainable:
            self.requires_grad_(False)
        self.train(trainable)

    def train(self, mode: bool = True) -> "PyramidPoolingHead":
        """Set the mode; a frozen head stays in eval, with fixed BatchNorm and no dropout."""
        return super().train(mode and self.trainable)

    def forward(self, features: Tensor) -> Tensor:
        """Classify features (B, C, h, w): logits (B, num_classes, h, w)."""
        pooled = [pool(features) for pool in self.pools]
        logits: Tensor
        if kernels.enabled():
            kernel = cast(nn.Conv2d, self.classify[0]).weight
            logits = self.classify[1:](convolve_pooled(features, pooled, kernel))
        else:
            resized = [resize(maps, features.shape[-2:]) for maps in pooled]
            logits = self.classify(torch.cat([features, *resized], dim=1))
        return logits


class PSPNet(nn.Module):
    """A dilated backbone and its head, trained on a fold's base classes.

    After training they are B_sem and H_cls of the few-shot network, at output stride 8.
    learns: the part to train; the rest is frozen, including its BatchNorm.
    """

    def __init__(
        self,
        backbone: str,
        num_base_classes: int,
        *,
        output_stride: int = 8,
        learns: Literal["all", "head", "nothing"] = "nothing",
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, output_stride=output_stride, trainable=learns == "all")
        num_classes = num_base_classes + 1
        self.head = PyramidPoolingHead(self.backbone.num_features, num_classes, trainable=learns != "nothing")

    def forward(self, images: Tensor) -> Tensor:
        """Segment images (B, 3, H, W) in [0, 1]: logits (B, 1 + base classes, h, w) at the output stride."""
        logits: Tensor = self.head(self.backbone.deepest(images))
        return logits


def base_map(base_logits: Tensor, episode_class: Tensor | None = None) -> Tensor:
    """Return the sum of the base classes' probabilities (eq. 13): (B, 1, h, w) in [0, 1].

    base_logits: (B, 1 + base classes, h, w). episode_class: (B,) index of the base class to exclude from each
    sum, -1 for none. In training it is the episode's class, which would otherwise suppress itself.
    """
    probabilities = base_logits.softmax(dim=1)[:, 1:]
    if episode_class is not None:
        classes = torch.arange(probabilities.shape[1], device=base_logits.device)
        others = classes != episode_class[:, None]
        probabilities = probabilities * others[..., None, None]
    return probabilities.sum(dim=1, keepdim=True)


def merge_base_logits(base_logits: Tensor) -> Tensor:
    """Merge all base classes into one: logits (B, 2, h, w) that have the same base map.

    base_logits: (B, 1 + base classes, h, w). Heads with different classes can then share a batch.
    """
    return torch.cat([base_logits[:, :1], base_logits[:, 1:].logsumexp(dim=1, keepdim=True)], dim=1)


def mask_class_logit(base_logits: Tensor, episode_class: Tensor) -> Tensor:
    """Set the logit of each episode's class to -inf, as if H_cls did not have that class.

    base_logits: (B, 1 + base classes, h, w). episode_class: (B,) index of a base class, -1 for none.
    """
    outputs = torch.arange(base_logits.shape[1], device=base_logits.device)
    own = (outputs == episode_class[:, None] + 1) & (episode_class >= 0)[:, None]
    return base_logits.masked_fill(own[..., None, None], -torch.inf)
