"""Products of matrices, and the convolutions of a backbone, as oneDNN computes them fast on CPUs, in fp32.

Torch itself would give a product to MKL, and with one thread a 1x1 convolution, too. MKL uses half of the
width of AMD's AVX-512 units; oneDNN, which torch always has with it, uses all of it, and gives the same
numbers but for the order of sums. On other devices, and in bf16, torch's own way is as good.

For dilated depthwise convolutions oneDNN has no fast code: they take many times as long as plain ones. But a
dilated convolution is a plain one on each of the interleaved grids that its kernel sees apart.

Axis letters: X rows of the left matrix, N rows of the right one, C what both are as long as.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DILATION = 2
"""Means nothing to a 1x1 kernel, but torch gives dilated convolutions to oneDNN whatever their size is."""


class Factor:
    """A matrix (N, C) that several others are multiplied by."""

    def __init__(self, rows_NC: Tensor) -> None:
        self._rows_NC = rows_NC.to_mkldnn() if _is_onednns(rows_NC) else rows_NC

    def times(self, rows_XC: Tensor) -> Tensor:
        """Multiply each row of the one by each of the other: (X, N). Without a gradient."""
        if self._rows_NC.is_mkldnn:
            product: Tensor = F.linear(rows_XC.to_mkldnn(), self._rows_NC).to_dense()
            return product
        return rows_XC @ self._rows_NC.T


def linear(rows_XC: Tensor, matrix_NC: Tensor) -> Tensor:
    """Multiply each row of the one by each of the other: (X, N)."""
    if not _is_onednns(rows_XC):
        return F.linear(rows_XC, matrix_NC)
    image_1CX1 = rows_XC[None, :, None].permute(0, 3, 1, 2)  # channels last: nothing is copied
    convolved_1NX1 = F.conv2d(image_1CX1, matrix_NC[:, :, None, None], dilation=DILATION)
    return convolved_1NX1.permute(0, 2, 3, 1).flatten(0, 2)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dilation = DILATION if _is_onednns(input) else self.dilation
        return F.conv2d(input, weight, bias, self.stride, self.padding, dilation, self.groups)


class DilatedDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 whose kernel is dilated, and padded to keep the size."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _is_onednns(input):
            slow: Tensor = super()._conv_forward(input, weight, bias)
            return slow
        (rows, columns), (b, c, h, w) = self.dilation, input.shape
        padded = F.pad(input, (0, -w % columns, 0, -h % rows)).permute(0, 2, 3, 1)
        high, wide = padded.shape[1] // rows, padded.shape[2] // columns
        grids = padded.reshape(b, high, rows, wide, columns, c).permute(0, 2, 4, 1, 3, 5)
        images = grids.flatten(0, 2).permute(0, 3, 1, 2)  # channels last: copied once, as it lies
        middle = self.kernel_size[0] // 2, self.kernel_size[1] // 2
        convolved = F.conv2d(images, weight, bias, padding=middle, groups=self.groups).permute(0, 2, 3, 1)
        grids = convolved.reshape(b, rows, columns, high, wide, c).permute(0, 3, 1, 4, 2, 5)
        found: Tensor = grids.reshape(padded.shape)[:, :h, :w].permute(0, 3, 1, 2)
        return found


def use_onednn(network: nn.Module) -> None:
    """Let a network's convolutions be those above, where they are such; their weights and hooks stay."""
    for module in network.modules():
        if type(module) is not nn.Conv2d:
            continue
        if module.kernel_size == (1, 1) and module.padding == (0, 0):
            module.__class__ = PointwiseConv2d
        elif module.groups == module.in_channels == module.out_channels > 1 and _is_dilated_in_place(module):
            module.__class__ = DilatedDepthwiseConv2d


def _is_dilated_in_place(conv: nn.Conv2d) -> bool:
    keeps = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    is_odd = all(k % 2 for k in conv.kernel_size)
    return max(conv.dilation) > 1 and conv.stride == (1, 1) and is_odd and conv.padding == keeps


def _is_onednns(tensor: Tensor) -> bool:
    is_plain = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    return is_plain and not _is_drawn() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def _is_drawn() -> bool:
    """Whether a graph is being made, which will be run in some other way."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
