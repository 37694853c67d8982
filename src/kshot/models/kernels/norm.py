"""GroupNorm and ReLU in one step, for volumes whose channels are last in memory.

Extra suffix: G groups of channels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

NARROW = 16
"""Channels per group below which torch's gradient on a CPU is slow: it loops over them. With four, it takes
longer than the convolutions before and after it."""

CHUNK_SIZE = 2**17
"""Values processed at a time: they fit in a core's cache."""


def norm_relu(volume: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return ReLU(norm(volume)) for (B, C, H, W, U, V)."""
    volume_BHWUVC = volume.permute(0, 2, 3, 4, 5, 1)
    if torch.is_grad_enabled() and volume.device.type == "cpu" and _is_narrow(norm):
        result: Tensor = _NormReLU.apply(volume_BHWUVC, norm.weight, norm.bias, norm.num_groups, norm.eps)
    else:
        # The same memory, as a channels_last image.
        image = volume_BHWUVC.flatten(2, 4).permute(0, 3, 1, 2)
        result = F.relu(norm(image), inplace=True).permute(0, 2, 3, 1).reshape(volume_BHWUVC.shape)
    return result.permute(0, 5, 1, 2, 3, 4)


def _is_narrow(norm: nn.GroupNorm) -> bool:
    return norm.num_channels // norm.num_groups < NARROW


class _NormReLU(torch.autograd.Function):
    """Torch's GroupNorm and ReLU, with a gradient that loops over rows of positions and channels."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        image = volume.flatten(2, 4).permute(0, 3, 1, 2)
        b, c, h, w = image.shape
        normed, mean, rstd = torch.native_group_norm(image, weight, bias, b, c, h * w, groups, eps)
        result = normed.relu_().permute(0, 2, 3, 1).reshape(volume.shape)
        ctx.save_for_backward(volume, result, weight, mean.float(), rstd.float())
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        volume, result, weight, mean_BG, rstd_BG = ctx.saved_tensors
        d_volume = torch.empty_like(volume, memory_format=torch.contiguous_format)
        d_weight, d_bias = weight.new_zeros(weight.shape), weight.new_zeros(weight.shape)
        for index in range(len(volume)):
            x, y, d_y, d_x = (
                tensor[index].flatten(0, 1).flatten(1) for tensor in (volume, result, d_result, d_volume)
            )
            image_d_weight, image_d_bias = _backward(x, y, d_y, d_x, weight, mean_BG[index], rstd_BG[index])
            d_weight += image_d_weight
            d_bias += image_d_bias
        return d_volume, d_weight, d_bias, None, None


def _backward(
    x: Tensor, result: Tensor, d_result: Tensor, d_x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor]:
    """Write one image's gradient to `d_x`; return the gradients of weight and bias, each (C,).

    The first four are (H W, U V C). mean, rstd: (G,).
    """
    repeats, groups = x.shape[1] // len(weight), len(mean)
    step = max(CHUNK_SIZE // x.shape[1], 1)
    chunks = [slice(start, start + step) for start in range(0, len(x), step)]
    sums, products = (torch.zeros(x.shape[1], device=x.device) for _ in range(2))
    for chunk in chunks:
        d_norm = d_result[chunk].float() * (result[chunk] > 0)
        d_x[chunk] = d_norm
        sums += d_norm.sum(dim=0)
        products += d_norm.mul_(x[chunk]).sum(dim=0)
    d_bias, d_x_dot_x = (total.view(repeats, groups, -1).sum(dim=0) for total in (sums, products))
    d_weight = (d_x_dot_x - mean[:, None] * d_bias) * rstd[:, None]
    # With y = (x - mean) rstd and g = weight x gradient: dx = rstd (g - mean(g) - y mean(g y)).
    scale = weight.float().view(groups, -1)
    count = x.numel() // groups
    mean_g, mean_gy = ((scale * gradient).sum(dim=1) / count for gradient in (d_bias, d_weight))
    slope = -rstd.square() * mean_gy
    offset = -rstd * mean_g - slope * mean
    factors, slopes, offsets = (
        one.expand(groups, scale.shape[1]).repeat(repeats, 1).flatten()
        for one in (scale * rstd[:, None], slope[:, None], offset[:, None])
    )
    for chunk in chunks:
        shift = torch.addcmul(offsets, x[chunk].float(), slopes)
        d_x[chunk] = shift.addcmul_(d_x[chunk].float(), factors)
    return d_weight.flatten(), d_bias.flatten()
