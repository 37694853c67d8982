"""Matrix products and a backbone's convolutions by oneDNN, in fp32 on CPUs.

Torch gives matrix products, and with one thread 1x1 convolutions, to MKL, which uses half of the width of
AMD's AVX-512 units. oneDNN, which torch includes, uses all of it; only the order of sums differs. On other
devices and in bf16 torch's own choice is as fast.

oneDNN has no fast code for dilated depthwise convolutions. They are computed as plain convolutions of the
interleaved grids that the dilated kernel visits separately.

Extra suffixes: X rows of the left matrix, N rows of the right one, C the columns of both.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.models import kernels

DILATION = 2
"""Does not change a 1x1 convolution, but torch gives dilated convolutions of any size to oneDNN."""


class PackedLinear:
    """A matrix (N, C), packed once for several products."""

    def __init__(self, weight_NC: Tensor) -> None:
        self._weight_NC = weight_NC.to_mkldnn() if _uses_onednn(weight_NC) else weight_NC

    def __call__(self, rows_XC: Tensor) -> Tensor:
        """Return rows @ weight.T, (X, N). It has no gradient."""
        if self._weight_NC.is_mkldnn:
            product: Tensor = F.linear(rows_XC.to_mkldnn(), self._weight_NC).to_dense()
            return product
        return rows_XC @ self._weight_NC.T


def linear(rows_XC: Tensor, weight_NC: Tensor) -> Tensor:
    """Return rows @ weight.T, (X, N)."""
    if not _uses_onednn(rows_XC):
        return F.linear(rows_XC, weight_NC)
    image_1CX1 = rows_XC[None, :, None].permute(0, 3, 1, 2)  # a channels_last view, no copy
    convolved_1NX1 = F.conv2d(image_1CX1, weight_NC[:, :, None, None], dilation=DILATION)
    return convolved_1NX1.permute(0, 2, 3, 1).flatten(0, 2)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dilation = DILATION if _uses_onednn(input) else self.dilation
        return F.conv2d(input, weight, bias, self.stride, self.padding, dilation, self.groups)


class DilatedDepthwiseConv2d(nn.Conv2d):
    """A dilated depthwise convolution of stride 1, padded to keep the size."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _uses_onednn(input):
            dilated: Tensor = super()._conv_forward(input, weight, bias)
            return dilated
        (rows, columns), (b, c, h, w) = self.dilation, input.shape
        padded = F.pad(input, (0, -w % columns, 0, -h % rows)).permute(0, 2, 3, 1)
        grid_h, grid_w = padded.shape[1] // rows, padded.shape[2] // columns
        grids = padded.reshape(b, grid_h, rows, grid_w, columns, c).permute(0, 2, 4, 1, 3, 5)
        images = grids.flatten(0, 2).permute(0, 3, 1, 2)  # channels_last, copied once
        padding = self.kernel_size[0] // 2, self.kernel_size[1] // 2
        convolved = F.conv2d(images, weight, bias, padding=padding, groups=self.groups).permute(0, 2, 3, 1)
        grids = convolved.reshape(b, rows, columns, grid_h, grid_w, c).permute(0, 3, 1, 4, 2, 5)
        result: Tensor = grids.reshape(padded.shape)[:, :h, :w].permute(0, 3, 1, 2)
        return result


def use_onednn(network: nn.Module) -> None:
    """Change the class of a network's 1x1 and dilated depthwise convolutions to those above.

    Weights and hooks stay.
    """
    for module in network.modules():
        if type(module) is not nn.Conv2d:
            continue
        if module.kernel_size == (1, 1) and module.padding == (0, 0):
            module.__class__ = PointwiseConv2d
        elif module.groups == module.in_channels == module.out_channels > 1 and _keeps_size(module):
            module.__class__ = DilatedDepthwiseConv2d


def _keeps_size(conv: nn.Conv2d) -> bool:
    """Return whether a convolution is dilated, of stride 1, and padded to keep the size."""
    same = tuple(d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    is_odd = all(k % 2 for k in conv.kernel_size)
    return max(conv.dilation) > 1 and conv.stride == (1, 1) and is_odd and conv.padding == same


def _uses_onednn(tensor: Tensor) -> bool:
    is_plain = tensor.device.type == "cpu" and tensor.dtype == torch.float32
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return kernels.enabled() and is_plain and not _is_tracing() and has_onednn


def _is_tracing() -> bool:
    """Return whether torch records a graph, which another engine may run."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
