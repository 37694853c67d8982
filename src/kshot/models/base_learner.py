"""Step 5 of the network: the PSPNet trained on base classes, frozen (B_sem and H_cls).

Its backbone gives the second feature pyramid; its head says where base classes are.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.models.backbones import Backbone, TapPlaces
from kshot.models.hypercorrelation import resize

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
        """Switch to training mode, which a frozen head refuses: its BatchNorm and dropout are fixed."""
        return super().train(mode and self.trainable)

    def forward(self, features: Tensor) -> Tensor:
        """Classify features (B, C, h, w): logits (B, num_classes, h, w).

        The pooled maps are never made as large as the features and joined to them, as in the paper: the
        sum of what the convolution makes of each part is the same, and half of the work.
        """
        parts = [features, *(pool(features) for pool in self.pools)]
        weight = cast(nn.Conv2d, self.classify[0]).weight
        kernels = torch.split(weight, [part.shape[1] for part in parts], dim=1)
        joined = F.conv2d(features, kernels[0], padding=1)
        for pooled, kernel in zip(parts[1:], kernels[1:], strict=True):
            joined = joined + convolve_resized(pooled, kernel, features.shape[-2:])
        logits: Tensor = self.classify[1:](joined)
        return logits


def convolve_resized(maps_BCIJ: Tensor, kernel_OCKL: Tensor, size: torch.Size) -> Tensor:
    """Resize maps to `size` = (height, width) and convolve them, padded to keep it: (B, O, Y, X).

    Both steps are linear, so channels are mixed at the few positions before the resizing.
    """
    rows_KYI, columns_LXJ = (
        _shifted_resize(maps_BCIJ, axis, size[axis], kernel_OCKL.shape[axis]) for axis in (-2, -1)
    )
    mixed = torch.einsum("bcij,ockl->boklij", maps_BCIJ, kernel_OCKL)
    wide = torch.einsum("boklij,lxj->bokix", mixed, columns_LXJ)
    return torch.einsum("bokix,kyi->boyx", wide, rows_KYI)


def _shifted_resize(maps: Tensor, axis: int, new_length: int, kernel_size: int) -> Tensor:
    """Write resizing an axis of maps as matrices (K, new length, length), shifted by each kernel element."""
    length = maps.shape[axis]
    dtype = torch.promote_types(maps.dtype, torch.float32)
    identity = torch.eye(length, dtype=dtype, device=maps.device)
    matrix = resize(identity[None, :, :, None], (new_length, 1))[0, :, :, 0].T
    padded = F.pad(matrix, (0, 0, kernel_size // 2, kernel_size // 2))
    return torch.stack([padded[shift : shift + new_length] for shift in range(kernel_size)]).to(maps.dtype)


class PSPNet(nn.Module):
    """A dilated backbone and its head, to be trained on a fold's base classes.

    Once trained, the two are B_sem and H_cls of the few-shot network, which run at output stride 8.
    learns: what is trained; the rest is frozen, its BatchNorm too.
    """

    def __init__(
        self,
        backbone: str,
        num_base_classes: int,
        *,
        output_stride: int = 8,
        taps: TapPlaces = "blocks",
        learns: Literal["all", "head", "nothing"] = "nothing",
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, output_stride=output_stride, trainable=learns == "all", taps=taps)
        num_classes = num_base_classes + 1
        self.head = PyramidPoolingHead(self.backbone.num_features, num_classes, trainable=learns != "nothing")

    def forward(self, images: Tensor) -> Tensor:
        """Segment images (B, 3, H, W) in [0, 1]: logits (B, 1 + base classes, h, w) at the output stride."""
        logits: Tensor = self.head(self.backbone.deepest(images))
        return logits


def base_map(base_logits: Tensor, episode_class: Tensor | None = None) -> Tensor:
    """Sum the probabilities of the base classes, background left out: (B, 1, h, w) in [0, 1].

    base_logits: (B, 1 + base classes, h, w). episode_class: (B,) indices of base classes from 0, each
    left out of its own sum; while training, the target would else suppress itself. -1: not one of them.
    """
    probabilities = base_logits.softmax(dim=1)[:, 1:]
    if episode_class is not None:
        classes = torch.arange(probabilities.shape[1], device=base_logits.device)
        others = classes != episode_class[:, None]
        probabilities = probabilities * others[..., None, None]
    return probabilities.sum(dim=1, keepdim=True)


def merge_classes(base_logits: Tensor) -> Tensor:
    """Make all base classes one: (B, 2, h, w), which give the same base map.

    base_logits: (B, 1 + base classes, h, w). Heads that know different classes can then share a batch.
    """
    return torch.cat([base_logits[:, :1], base_logits[:, 1:].logsumexp(dim=1, keepdim=True)], dim=1)


def unlearn(base_logits: Tensor, episode_class: Tensor) -> Tensor:
    """Take the logit of each episode's class away, as though H_cls had never learnt it.

    base_logits: (B, 1 + base classes, h, w). episode_class: (B,) indices of base classes from 0; -1: none.
    """
    outputs = torch.arange(base_logits.shape[1], device=base_logits.device)
    own = (outputs == episode_class[:, None] + 1) & (episode_class >= 0)[:, None]
    return base_logits.masked_fill(own[..., None, None], -torch.inf)
