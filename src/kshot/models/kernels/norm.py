"""Step 3b of the network: GroupNorm and ReLU, on volumes with channels last.

Axis letters: B batch, H W query rows and columns, U V support's, C channels, G groups.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

NARROW = 16
"""Channels of a group below which torch's own gradient, which goes along them on a CPU, is slow: at four of
them it takes longer than the convolutions on both sides."""

CHUNK = 2**17
"""Values that are looked at together: so few that they stay in a core's cache."""


def norm_relu(volume_BHWUVC: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise (B, H, W, U, V, C), and cut what is negative to 0."""
    if torch.is_grad_enabled() and volume_BHWUVC.device.type == "cpu" and _is_narrow(norm):
        normed: Tensor = _NormReLU.apply(volume_BHWUVC, norm.weight, norm.bias, norm.num_groups, norm.eps)
        return normed
    # GroupNorm wants an image with channels second: as channels_last that is the same memory.
    image = volume_BHWUVC.flatten(2, 4).permute(0, 3, 1, 2)
    return F.relu(norm(image), inplace=True).permute(0, 2, 3, 1).reshape(volume_BHWUVC.shape)


def _is_narrow(norm: nn.GroupNorm) -> bool:
    return norm.num_channels // norm.num_groups < NARROW


class _NormReLU(torch.autograd.Function):
    """Torch's GroupNorm and ReLU, with a gradient that goes along whole rows of positions and channels."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        image = volume.flatten(2, 4).permute(0, 3, 1, 2)
        b, c, h, w = image.shape
        normed, mean, rstd = torch.native_group_norm(image, weight, bias, b, c, h * w, groups, eps)
        answer = normed.relu_().permute(0, 2, 3, 1).reshape(volume.shape)
        ctx.save_for_backward(volume, answer, weight, mean.float(), rstd.float())
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        volume, answer, weight, mean_BG, rstd_BG = ctx.saved_tensors
        d_volume = torch.empty_like(volume, memory_format=torch.contiguous_format)
        d_weight, d_bias = weight.new_zeros(weight.shape), weight.new_zeros(weight.shape)
        for number in range(len(volume)):
            rows, cut, reaching, out = (
                one[number].flatten(0, 1).flatten(1) for one in (volume, answer, gradient, d_volume)
            )
            of_weight, of_bias = _backward(rows, cut, reaching, out, weight, mean_BG[number], rstd_BG[number])
            d_weight += of_weight
            d_bias += of_bias
        return d_volume, d_weight, d_bias, None, None


def _backward(
    rows: Tensor, answer: Tensor, gradient: Tensor, out: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor]:
    """Write an image's gradient (rows, U V C) to `out`; return its part of that of weight and bias (C,)."""
    repeats, groups = rows.shape[1] // len(weight), len(mean)
    step = max(CHUNK // rows.shape[1], 1)
    chunks = [slice(start, start + step) for start in range(0, len(rows), step)]
    sums, products = (torch.zeros(rows.shape[1], device=rows.device) for _ in range(2))
    for chunk in chunks:
        reaching = gradient[chunk].float() * (answer[chunk] > 0)
        out[chunk] = reaching
        sums += reaching.sum(dim=0)
        products += reaching.mul_(rows[chunk]).sum(dim=0)
    d_bias, along = (one.view(repeats, groups, -1).sum(dim=0) for one in (sums, products))
    d_weight = (along - mean[:, None] * d_bias) * rstd[:, None]
    # Of x' = (x - mean) rstd, whose mean and spread depend on x: dx = rstd (g - mean(g) - x' mean(g x')).
    scale = weight.float().view(groups, -1)
    count = rows.numel() // groups
    of_mean, of_spread = ((scale * one).sum(dim=1) / count for one in (d_bias, d_weight))
    slope = -rstd.square() * of_spread
    offset = -rstd * of_mean - slope * mean
    factors, slopes, offsets = (
        one.expand(groups, scale.shape[1]).repeat(repeats, 1).flatten()
        for one in (scale * rstd[:, None], slope[:, None], offset[:, None])
    )
    for chunk in chunks:
        shift = torch.addcmul(offsets, rows[chunk].float(), slopes)
        out[chunk] = shift.addcmul_(out[chunk].float(), factors)
    return d_weight.flatten(), d_bias.flatten()
