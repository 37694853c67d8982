"""Step 3c of the network: the 4-D encoder, from correlations to one map of the query.

One encoder serves all three matches: by B_cls, by B_sem, and the second pass.
Axis letters: B batch, H W query rows and columns, U V support's, C channels.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.models.conv4d import CenterPivotConv4d
from kshot.models.hypercorrelation import Correlation, resize
from kshot.models.kernels.norm import norm_relu

CHANNELS = (16, 64, 128)
"""Channels after each of a stage's three convolutions, as published; the last is what the encoder returns."""

# Deepest stage (stride 32) first, as everywhere in the encoder.
KERNEL_SIZES = ((3, 3, 3), (5, 3, 3), (5, 5, 3))
SUPPORT_STRIDES = ((2, 2, 2), (4, 2, 2), (4, 4, 2))
"""Strides at 400 px. Each stage ends with ceil(image size / 256) support positions an axis."""

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
        """Map (B, H, W, U, V, C) to (B, H, W, U', V', C'), smaller by the support strides."""
        for conv, norm, stride in zip(self.convs, self.norms, strides, strict=True):
            assert isinstance(norm, nn.GroupNorm)
            volume = norm_relu(conv(volume, stride), norm)
        assert isinstance(volume, Tensor)
        return volume


class Encoder(nn.Module):
    """Squeeze each stage's support axes, then mix the stages from the deepest to the finest.

    taps_per_stage: number of taps at strides 8, 16, 32, as a Backbone says them; without the first the
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
        """Encode a hypercorrelation, deepest stage first, as (B, C, H, W) of the finest stage."""
        strides = support_strides(correlations[0].support_size)[: self.num_stages]
        deepest, *finer = (
            squeeze(correlation, stage_strides)
            for squeeze, correlation, stage_strides in zip(self.squeeze, correlations, strides, strict=True)
        )
        mixed: Tensor = deepest
        for mix, stage in zip(self.mix, finer, strict=True):
            mixed = mix(_resize_query_axes(mixed, stage.shape[1:3]) + _fit_support_axes(stage, mixed))
        return mixed.mean(dim=(3, 4)).permute(0, 3, 1, 2)


def support_strides(deepest_size: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Choose each convolution's support strides (rows, columns), deepest stage first.

    deepest_size: (U, V) of the deepest support map. They are HSNet's strides where at least two
    positions an axis survive them. Otherwise every stage's are halved, the last convolution's first,
    until two survive or, for a map of one position, nothing is left to halve.
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


def _resize_query_axes(volume_BHWUVC: Tensor, size: torch.Size) -> Tensor:
    image = volume_BHWUVC.flatten(3).permute(0, 3, 1, 2)
    resized = resize(image, size).permute(0, 2, 3, 1)
    return resized.reshape(resized.shape[0], *size, *volume_BHWUVC.shape[3:])


def _fit_support_axes(volume_BHWUVC: Tensor, like: Tensor) -> Tensor:
    """Give two stages the same support positions: only nets that round sizes down ever differ."""
    size = like.shape[3:5]
    if volume_BHWUVC.shape[3:5] == size:
        return volume_BHWUVC
    images = volume_BHWUVC.flatten(0, 2).permute(0, 3, 1, 2)
    pooled = F.adaptive_avg_pool2d(images, (size[0], size[1])).permute(0, 2, 3, 1)
    return pooled.reshape(*volume_BHWUVC.shape[:3], *pooled.shape[1:])
