"""The support-side half of a centre-pivot convolution, as matrix products over whole query maps.

Each window of the kernel is one matrix product: its weights times the maps of the support positions under it.
Maps are copied whole, so memory is read in long rows, where a 2-D convolution of one tiny support image for
each query position would jump. A support mask is multiplied into the weights, not into the far larger volume:
it can then learn without the gradient of the volume, and windows that it leaves empty cost nothing.

Axis letters: B batch, C channels, N support positions (U V), X query positions, O output channels, P windows,
K elements of the kernel.
"""

from typing import Any

import torch
from torch import Tensor

Pair = tuple[int, int]


def support_conv(
    volume_BCUVHW: Tensor, kernel: Tensor, stride: Pair, mask_BUV: Tensor | None = None
) -> Tensor:
    """Convolve over the support's axes, zero-padded by half the kernel: (B, O, U', V', H, W), without bias.

    kernel: (O, C, k, k), k odd. mask_BUV: multiplied onto the volume's support positions. All three learn.
    """
    b, c, u, v, h, w = volume_BCUVHW.shape
    volume_BCNX = volume_BCUVHW.reshape(b, c, u * v, h * w)
    mask_BN = None if mask_BUV is None else mask_BUV.flatten(1)
    convolved: Tensor = _SupportConv.apply(volume_BCNX, mask_BN, kernel, (u, v), stride)
    return convolved.view(b, kernel.shape[0], -(-u // stride[0]), -(-v // stride[1]), h, w)


class _SupportConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, volume_BCNX: Tensor, mask_BN: Tensor | None, kernel: Tensor, size: Pair, stride: Pair
    ) -> Tensor:
        windows = _Windows(size, kernel.shape[-1], stride, kernel.device)
        result = volume_BCNX.new_zeros(
            len(volume_BCNX), len(kernel), len(windows.under_PK), volume_BCNX.shape[-1]
        )
        for number, image_CNX in enumerate(volume_BCNX):
            factor_PK, chosen = windows.masked(mask_BN, number, any(ctx.needs_input_grad[:2]))
            weights = (_by_element(kernel) * factor_PK[chosen][:, None, :, None]).flatten(2)
            maps = windows.gather(image_CNX, chosen)
            result[number, :, chosen] = (weights.to(maps.dtype) @ maps).transpose(0, 1).to(result.dtype)
        ctx.save_for_backward(volume_BCNX, mask_BN, kernel)
        ctx.windows = windows
        return result

    @staticmethod
    def backward(ctx: Any, gradient_BOPX: Tensor) -> tuple[Tensor | None, ...]:
        volume_BCNX, mask_BN, kernel = ctx.saved_tensors
        windows: _Windows = ctx.windows
        d_volume = torch.empty_like(volume_BCNX) if ctx.needs_input_grad[0] else None
        d_mask = torch.zeros_like(mask_BN) if ctx.needs_input_grad[1] else None
        d_kernel_OKC = torch.zeros_like(_by_element(kernel))
        for number, image_CNX in enumerate(volume_BCNX):
            factor_PK, chosen = windows.masked(mask_BN, number, any(ctx.needs_input_grad[:2]))
            maps = windows.gather(image_CNX, chosen)
            gradient_POX = gradient_BOPX[number, :, chosen].transpose(0, 1).to(maps.dtype)
            product = (gradient_POX @ maps.transpose(1, 2)).to(kernel.dtype)
            product_POKC = product.view(*product.shape[:2], *d_kernel_OKC.shape[1:])
            factor = factor_PK[chosen].to(kernel.dtype)
            d_kernel_OKC += torch.einsum("pokc,pk->okc", product_POKC, factor)
            if d_mask is not None:
                d_factor = torch.einsum("pokc,okc->pk", product_POKC, _by_element(kernel))
                d_mask[number] = windows.add_up(d_factor)
            if d_volume is not None:
                weights = (_by_element(kernel) * factor_PK[:, None, :, None]).flatten(2).to(maps.dtype)
                d_volume[number] = windows.scatter(weights.transpose(1, 2) @ gradient_POX, image_CNX)
        d_kernel = d_kernel_OKC.transpose(1, 2).reshape(kernel.shape)
        return d_volume, d_mask, d_kernel, None, None


class _Windows:
    """Which support positions lie under each element of each window of a kernel."""

    def __init__(self, size: Pair, kernel_size: int, stride: Pair, device: torch.device) -> None:
        self.size, self.kernel_size, self.stride = size, kernel_size, stride
        steps = torch.arange(kernel_size, device=device) - kernel_size // 2
        rows, columns = (
            torch.arange(0, length, step, device=device)[:, None] + steps
            for length, step in zip(size, stride, strict=True)
        )
        self.grid = (len(rows), len(columns))
        row_is_inside, column_is_inside = (
            (at >= 0) & (at < length) for at, length in zip((rows, columns), size, strict=True)
        )
        under = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
        is_inside = row_is_inside[:, None, :, None] & column_is_inside[None, :, None, :]
        self.is_inside_PK = is_inside.reshape(len(rows) * len(columns), -1)
        # What lies outside is read from anywhere, and counts nothing.
        self.under_PK = under.reshape(self.is_inside_PK.shape) * self.is_inside_PK

    def masked(self, mask_BN: Tensor | None, number: int, all_learn: bool) -> tuple[Tensor, Any]:
        """Give each element's factor, and the windows that count: all, or those that are not masked out."""
        if mask_BN is None:
            return self.is_inside_PK, slice(None)
        factor_PK = mask_BN[number, self.under_PK] * self.is_inside_PK
        return factor_PK, slice(None) if all_learn else factor_PK.any(dim=1).nonzero()[:, 0]

    def gather(self, image_CNX: Tensor, chosen: Any) -> Tensor:
        """Copy the maps under some windows: (P, K C, X)."""
        channels, positions, x = image_CNX.shape
        under_PK = self.under_PK[chosen]
        rows_PKC = under_PK[..., None] + torch.arange(channels, device=under_PK.device) * positions
        maps = image_CNX.flatten(0, 1).index_select(0, rows_PKC.flatten())
        return maps.view(len(under_PK), under_PK.shape[1] * channels, x)

    def scatter(self, maps: Tensor, like_CNX: Tensor) -> Tensor:
        """Add maps (P, K C, X) up where they were gathered from."""
        channels, _, x = like_CNX.shape
        k, (u, v), (du, dv), (p, q) = self.kernel_size, self.size, self.stride, self.grid
        padded = maps.new_zeros(channels, (p - 1) * du + k + du, (q - 1) * dv + k + dv, x)
        by_element = maps.view(p, q, k, k, channels, x)
        for row in range(k):
            for column in range(k):
                place = padded[:, row : row + p * du : du, column : column + q * dv : dv]
                place += by_element[:, :, row, column].permute(2, 0, 1, 3)
        inside = padded[:, k // 2 : k // 2 + u, k // 2 : k // 2 + v]
        return inside.reshape(like_CNX.shape)

    def add_up(self, values_PK: Tensor) -> Tensor:
        """Add values up over the support positions that they belong to: (N,)."""
        sums = values_PK.new_zeros(self.size[0] * self.size[1])
        return sums.index_add(0, self.under_PK.flatten(), (values_PK * self.is_inside_PK).flatten())


def _by_element(kernel: Tensor) -> Tensor:
    """Order a kernel (O, C, k, k) as (O, K, C)."""
    return kernel.flatten(2).transpose(1, 2)
