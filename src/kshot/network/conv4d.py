"""Step 3a of the network: the centre-pivot 4-D convolution (Min et al. 2021, section 4.2).

Axis letters: B batch, C channels, U V support rows and columns, H W query's. The query's axes come last, so
that convolving them moves no data, and mixing a few support positions is one matrix product.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.network.hypercorrelation import MaskedVolume
from kshot.network.support_conv import support_conv

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
        mask_BUV = None
        if isinstance(volume_BCUVHW, MaskedVolume):
            volume_BCUVHW, mask_BUV = volume_BCUVHW
        pruned = volume_BCUVHW[:, :, :: support_stride[0], :: support_stride[1]]
        if mask_BUV is not None:
            pruned = MaskedVolume(pruned, mask_BUV[:, :: support_stride[0], :: support_stride[1]]).product()
        over_support = self._convolve_support(volume_BCUVHW, support_stride, mask_BUV)
        return self._convolve_query(pruned) + over_support

    def _convolve_query(self, pruned_BCUVHW: Tensor) -> Tensor:
        """Convolve the query's axes, and add both convolutions' biases."""
        b, _, u, v, h, w = pruned_BCUVHW.shape
        kernel, padding = self.query_conv.weight.unsqueeze(2), (0, self.padding, self.padding)
        assert self.query_conv.bias is not None
        assert self.support_conv.bias is not None
        bias = self.query_conv.bias + self.support_conv.bias
        return F.conv3d(pruned_BCUVHW.flatten(2, 3), kernel, bias, padding=padding).view(b, -1, u, v, h, w)

    def _convolve_support(
        self, volume_BCUVHW: Tensor, stride: tuple[int, int], mask_BUV: Tensor | None
    ) -> Tensor:
        b, c, u, v, h, w = volume_BCUVHW.shape
        kernel = self.support_conv.weight
        if u * v > DENSE_POSITIONS:
            return support_conv(volume_BCUVHW, kernel, stride, mask_BUV)
        if mask_BUV is not None:
            volume_BCUVHW = MaskedVolume(volume_BCUVHW, mask_BUV).product()
        matrix, size = _matrix(kernel, (u, v), stride)
        mixed: Tensor = matrix @ volume_BCUVHW.reshape(b, c * u * v, h * w)
        return mixed.view(b, -1, *size, h, w)


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
