"""Step 3a of the network: the centre-pivot 4-D convolution (Min et al. 2021, section 4.2).

Axis letters: B batch, C channels, U V support rows and columns, H W query's. The query's axes come last, so
that convolving them moves no data, and mixing a few support positions is one matrix product.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.network.hypercorrelation import MaskedVolume
from kshot.network.mask_gradient import masked_support_conv

DENSE_POSITIONS = 4
"""Support positions up to which a support-side convolution is a matrix product: on a 2x2 grid a 3x3 kernel
spends more than half of its work on padding."""


class CenterPivotConv4d(nn.Module):
    """A 4-D convolution whose kernel lives only where one of its two halves is at its centre.

    It is the sum of a 2-D convolution over the query axes, at the support positions that survive the
    stride, and a 2-D convolution over the support axes. Query strides are 1. The support stride is
    an argument of the call, because it depends on the size of the images and the weights don't.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.padding = kernel_size // 2
        self.query_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=self.padding)
        self.support_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=self.padding)

    def forward(
        self, volume_BCUVHW: Tensor | MaskedVolume, support_stride: tuple[int, int] = (1, 1)
    ) -> Tensor:
        """Map (B, C, U, V, H, W) to (B, C', ceil(U / stride), ceil(V / stride), H, W)."""
        if isinstance(volume_BCUVHW, MaskedVolume):
            if volume_BCUVHW.mask is not None and volume_BCUVHW.mask.requires_grad:
                return self._convolve_masked(volume_BCUVHW, volume_BCUVHW.mask, support_stride)
            volume_BCUVHW = volume_BCUVHW.product()
        over_query = self._convolve_query(volume_BCUVHW, support_stride)
        over_support = self._convolve_support(volume_BCUVHW, support_stride)
        return over_query + over_support

    def _convolve_masked(self, volume: MaskedVolume, mask_BUV: Tensor, stride: tuple[int, int]) -> Tensor:
        """Do the same where the mask learns and the correlation does not."""
        pruned = (slice(None), slice(None), slice(None, None, stride[0]), slice(None, None, stride[1]))
        part = MaskedVolume(volume.correlation[pruned], mask_BUV[:, :: stride[0], :: stride[1]])
        over_query = self._convolve_query(part.product(), (1, 1))
        b, c, u, v, h, w = volume.shape
        images_BXCUV = volume.correlation.permute(0, 4, 5, 1, 2, 3).reshape(b, h * w, c, u, v)
        if volume.is_symmetric:
            rows = images_BXCUV.view(b, u, v, c, h * w)
        else:
            rows = volume.correlation.permute(0, 2, 3, 1, 4, 5).reshape(b, u, v, c, h * w)
        conv = self.support_conv
        assert conv.bias is not None
        over_support = masked_support_conv(images_BXCUV, rows, mask_BUV, conv.weight, conv.bias, stride)
        return over_query + over_support.view_as(over_query)

    def _convolve_query(self, volume_BCUVHW: Tensor, stride: tuple[int, int]) -> Tensor:
        pruned = volume_BCUVHW[:, :, :: stride[0], :: stride[1]]
        b, _, u, v, h, w = pruned.shape
        conv = self.query_conv
        kernel, padding = conv.weight.unsqueeze(2), (0, self.padding, self.padding)
        convolved = F.conv3d(pruned.flatten(2, 3), kernel, conv.bias, padding=padding)
        return convolved.view(b, -1, u, v, h, w)

    def _convolve_support(self, volume_BCUVHW: Tensor, stride: tuple[int, int]) -> Tensor:
        b, c, u, v, h, w = volume_BCUVHW.shape
        conv = self.support_conv
        if u * v <= DENSE_POSITIONS:
            matrix, size = _matrix(conv.weight, (u, v), stride)
            mixed = matrix @ volume_BCUVHW.reshape(b, c * u * v, h * w)
            assert conv.bias is not None
            return mixed.view(b, -1, *size, h, w) + conv.bias.view(-1, 1, 1, 1, 1)
        images_BHWCUV = volume_BCUVHW.permute(0, 4, 5, 1, 2, 3)
        if not images_BHWCUV.is_contiguous():
            images_BHWCUV = _swap(volume_BCUVHW.reshape(b, c * u * v, h * w)).view(b, h, w, c, u, v)
        images = images_BHWCUV.view(b * h * w, c, u, v)
        convolved = F.conv2d(images, conv.weight, conv.bias, stride, self.padding)
        return _swap(convolved.view(b, h * w, -1)).view(b, -1, *convolved.shape[2:], h, w)


class _Swap(torch.autograd.Function):
    """Swap two axes in memory, image by image: torch copies one transposed matrix three times as fast."""

    @staticmethod
    def forward(ctx: Any, maps_BMN: Tensor) -> Tensor:
        swapped = maps_BMN.new_empty(maps_BMN.shape[0], maps_BMN.shape[2], maps_BMN.shape[1])
        for target, source in zip(swapped, maps_BMN, strict=True):
            target.copy_(source.t())
        return swapped

    @staticmethod
    def backward(ctx: Any, gradient_BNM: Tensor) -> Tensor:
        return _swap(gradient_BNM)


def _swap(maps_BMN: Tensor) -> Tensor:
    swapped: Tensor = _Swap.apply(maps_BMN)
    return swapped


def _matrix(
    kernel: Tensor, positions: tuple[int, int], stride: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """Write a padded convolution of (U, V) positions as a matrix (C' U' V', C U V); give (U', V') too."""
    padded = F.pad(kernel, (0, 1, 0, 1))  # one more row and column, of zeros: off the kernel
    rows, columns = (
        _offsets(n, kernel.shape[2], step, kernel.device) for n, step in zip(positions, stride, strict=True)
    )
    spread = padded[:, :, rows][..., columns]  # (C', C, U', U, V', V)
    return spread.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).flatten(1), (rows.shape[0], columns.shape[0])


def _offsets(positions: int, kernel_size: int, stride: int, device: torch.device) -> Tensor:
    """Say which element of the kernel leads from each input to each output; kernel_size where none does."""
    outputs = torch.arange(0, positions, stride, device=device)
    offset = torch.arange(positions, device=device) - outputs[:, None] + kernel_size // 2
    return torch.where((offset >= 0) & (offset < kernel_size), offset, kernel_size)
