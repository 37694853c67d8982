"""The 4-D encoder: from the correlations of three stages to one feature map of the query (eqs. 4-5).

One encoder serves all three matches: by B_cls, by B_sem, and the second pass.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.models import kernels
from kshot.models.choices import CHANNELS
from kshot.models.conv4d import CenterPivotConv4d
from kshot.models.hypercorrelation import Correlation, resize
from kshot.models.kernels.norm import norm_relu

# The deepest stage (stride 32) comes first, as everywhere in the encoder.
KERNEL_SIZES = ((3, 3, 3), (5, 3, 3), (5, 5, 3))
SUPPORT_STRIDES = ((2, 2, 2), (4, 2, 2), (4, 4, 2))
"""Strides at 400 px. Each stage ends with ceil(image size / 256) support positions per axis."""

NORM_GROUPS = 4


class Conv4dBlock(nn.Module):
    """Centre-pivot convolutions, each followed by GroupNorm and ReLU."""

    def __init__(self, channels: Sequence[int], kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            CenterPivotConv4d(c_in, c_out, kernel)
            for (c_in, c_out), kernel in zip(pairwise(channels), kernel_sizes, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(NORM_GROUPS, c_out) for c_out in channels[1:])

    def forward(
        self, volume: Tensor | Correlation, strides: Sequence[tuple[int, int]] = ((1, 1),) * 3
    ) -> Tensor:
        """Map (B, C, H, W, U, V) to (B, O, H, W, U', V'), smaller by the support strides."""
        for conv, norm, stride in zip(self.convs, self.norms, strides, strict=True):
            assert isinstance(norm, nn.GroupNorm)
            convolved: Tensor = conv(volume, stride)
            volume = norm_relu(convolved, norm) if kernels.fuses_matching() else F.relu(norm(convolved))
        assert isinstance(volume, Tensor)
        return volume


class Encoder(nn.Module):
    """Squeeze the support axes of each stage, then mix the stages from the deepest to the finest.

    taps_per_stage: number of taps at strides 8, 16, 32, as `Backbone.taps_per_stage`; without the first the
    encoder ends at stride 16. channels: see CHANNELS.
    """

    def __init__(self, taps_per_stage: Sequence[int], channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        self.out_channels = channels[-1]
        self.num_stages = len(taps_per_stage)
        self.squeeze = nn.ModuleList(
            Conv4dBlock((taps, *channels), kernels)
            for taps, kernels in zip(reversed(taps_per_stage), KERNEL_SIZES, strict=False)
        )
        mixing = (self.out_channels,) * 4
        self.mix = nn.ModuleList(Conv4dBlock(mixing, (3, 3, 3)) for _ in taps_per_stage[1:])

    def forward(self, correlations: Sequence[Correlation]) -> Tensor:
        """Return the query's feature map (B, C, H, W) at the finest stage; correlations are deepest first."""
        strides = support_strides(correlations[0].support_size)[: self.num_stages]
        deepest, *finer = (
            squeeze(correlation, stage_strides)
            for squeeze, correlation, stage_strides in zip(self.squeeze, correlations, strides, strict=True)
        )
        mixed: Tensor = deepest
        for mix, stage in zip(self.mix, finer, strict=True):
            resized = _resize_query_axes(mixed, stage.shape[2:4])
            mixed = mix(resized + _pool_support_axes(stage, resized.shape[4:]))
        return mixed.mean(dim=(4, 5)).contiguous(memory_format=kernels.memory_format())


def support_strides(deepest_size: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Return the support strides (rows, columns) of each convolution, the deepest stage first.

    deepest_size: (U, V) of the deepest support map. The strides are HSNet's if they leave at least two
    positions per axis. Otherwise they are halved in every stage, the last convolution first, until two
    positions are left; a map of one position keeps its one.
    """
    rows, columns = (_axis_strides(size) for size in deepest_size)
    return [list(zip(r, c, strict=True)) for r, c in zip(rows, columns, strict=True)]


def _axis_strides(deepest_size: int) -> list[list[int]]:
    halvings = 0
    while halvings < 3 and -(-deepest_size // (8 >> halvings)) < 2:
        halvings += 1
    stages = [list(strides) for strides in SUPPORT_STRIDES]
    for strides in stages:
        for _ in range(halvings):
            last = max(i for i, stride in enumerate(strides) if stride > 1)
            strides[last] //= 2
    return stages


def _resize_query_axes(volume: Tensor, size: torch.Size) -> Tensor:
    _, c, _, _, u, v = volume.shape
    # Not a copy if channels are last in memory, as kernels store them.
    image = volume.permute(0, 2, 3, 4, 5, 1).flatten(3).permute(0, 3, 1, 2)
    resized = resize(image, size).permute(0, 2, 3, 1)
    return resized.reshape(-1, *size, u, v, c).permute(0, 5, 1, 2, 3, 4)


def _pool_support_axes(volume: Tensor, size: torch.Size) -> Tensor:
    """Average support positions to (U, V) = size: stages differ only if a network rounds map sizes down."""
    if volume.shape[4:] == size:
        return volume
    b, _, h, w, _, _ = volume.shape
    images = volume.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    pooled = F.adaptive_avg_pool2d(images, (size[0], size[1]))
    return pooled.reshape(b, h, w, -1, *size).permute(0, 3, 1, 2, 4, 5)
