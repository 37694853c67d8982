"""How a soft support mask learns, without ever making the gradient of the volume that it multiplies.

The volume is correlation x mask, and of the two only the mask learns: of all the gradients that the encoder's
first, largest convolution would have to make, one number a support position is wanted. Small matrix products
of correlations and incoming gradients, one a window of the kernel, give it, and the kernel's gradient too.

Axis letters: B batch, C channels, U V support rows and columns, X query positions, O output channels, P the
kernel's windows, K its elements.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


def masked_support_conv(
    correlation_BXCUV: Tensor,
    rows_BUVCX: Tensor,
    mask_BUV: Tensor,
    kernel: Tensor,
    bias: Tensor,
    stride: Pair,
) -> Tensor:
    """Convolve correlation x mask over the support's axes, zero-padded by half the kernel: (B, O, P, X).

    rows_BUVCX: the correlation again, its support positions first in memory; for a query that is its own
    support both are the same memory. Gradients reach mask, kernel and bias, never the correlation.
    """
    convolved: Tensor = _MaskedSupportConv.apply(
        correlation_BXCUV, rows_BUVCX, mask_BUV, kernel, bias, stride
    )
    return convolved


class _MaskedSupportConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, correlation: Tensor, rows: Tensor, mask: Tensor, kernel: Tensor, bias: Tensor, stride: Pair
    ) -> Tensor:
        b, x, c, u, v = correlation.shape
        images = (correlation * mask[:, None, None].to(correlation.dtype)).view(b * x, c, u, v)
        convolved = F.conv2d(images, kernel, bias, stride, kernel.shape[-1] // 2)
        ctx.save_for_backward(rows, mask, kernel)
        ctx.stride = stride
        result = convolved.new_empty(b, convolved[0].numel(), x)
        for target, source in zip(result, convolved.view(b, x, -1), strict=True):
            target.copy_(source.t())  # one by one: torch copies a single transposed matrix faster
        return result.view(b, kernel.shape[0], -1, x)

    @staticmethod
    def backward(ctx: Any, gradient_BOPX: Tensor) -> tuple[Tensor | None, ...]:
        rows, mask, kernel = ctx.saved_tensors
        b, u, v, c, x = rows.shape
        index_PK, is_inside_PK = _windows((u, v), kernel.shape[-1], ctx.stride, mask.device)
        gradient_BPXO = gradient_BOPX.permute(0, 2, 3, 1)
        products = []
        for image, gradient in zip(rows.reshape(b, u * v, c * x), gradient_BPXO, strict=True):
            windows = image.index_select(0, index_PK.flatten()).view(len(index_PK), -1, x)
            products.append((windows @ gradient.to(windows.dtype)).float())
        product_BPKCO = torch.stack(products).view(b, *index_PK.shape, c, -1)
        weight_KCO = kernel.float().flatten(2).permute(2, 1, 0)
        mask_BPK = mask.flatten(1)[:, index_PK].float() * is_inside_PK
        d_kernel = torch.einsum("bpk,bpkco->ock", mask_BPK, product_BPKCO).view_as(kernel)
        d_windows = torch.einsum("kco,bpkco->bpk", weight_KCO, product_BPKCO) * is_inside_PK
        d_mask = d_windows.new_zeros(b, u * v).index_add(1, index_PK.flatten(), d_windows.flatten(1))
        d_bias = gradient_BOPX.float().sum(dim=(0, 2, 3))
        return None, None, d_mask.view_as(mask).to(mask), d_kernel.to(kernel), d_bias.to(kernel), None


def _windows(size: Pair, kernel_size: int, stride: Pair, device: torch.device) -> tuple[Tensor, Tensor]:
    """Say which support position (of U V) each element of each window lies on, and whether it is inside."""
    steps = torch.arange(kernel_size, device=device) - kernel_size // 2
    rows, columns = (
        torch.arange(0, length, step, device=device)[:, None] + steps
        for length, step in zip(size, stride, strict=True)
    )
    inside = [(at >= 0) & (at < length) for at, length in zip((rows, columns), size, strict=True)]
    rows, columns = rows.clamp(0, size[0] - 1), columns.clamp(0, size[1] - 1)
    index = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
    is_inside = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    windows = index.shape[0] * index.shape[1]
    return index.reshape(windows, -1), is_inside.reshape(windows, -1)
