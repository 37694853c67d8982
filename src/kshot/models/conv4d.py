"""Step 3a of the network: the centre-pivot 4-D convolution (Min et al. 2021, section 4.2).

Axis letters: B batch, K masks of one support, H W query rows and columns, U V support's, X query positions,
L taps, C channels. With channels last and the support's axes before them, both of its convolutions read
memory as it lies: over the query all support positions are groups of channels of one image, over the support
all query positions are images of a batch.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from kshot.models.hypercorrelation import Correlation
from kshot.models.kernels.onednn import Factor, linear

DENSE_POSITIONS = 4
"""Support positions up to which a support-side convolution is a matrix product: on a 2x2 grid a 3x3 kernel
spends more than half of its work on padding."""

CHUNK = {"cpu": 2**19, "cuda": 2**26}
"""Correlations that exist at a time: on a CPU so few that they stay in its cache; elsewhere as on CUDA."""

Pair = tuple[int, int]


class CenterPivotConv4d(nn.Module):
    """A 4-D convolution whose kernel lives only where one of its two halves is at its centre.

    It is the sum of a 2-D convolution over the query axes, at the support positions that survive the
    stride, and a 2-D convolution over the support axes. Query strides are 1. The support stride is
    an argument of the call, because it depends on the size of the images and the weights don't.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.query_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
        self.support_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, volume: Tensor | Correlation, support_stride: Pair = (1, 1)) -> Tensor:
        """Map (B, H, W, U, V, C) to (B, H, W, ceil(U / stride), ceil(V / stride), C')."""
        kernels = self.query_conv.weight, self.support_conv.weight
        assert self.query_conv.bias is not None
        assert self.support_conv.bias is not None
        if isinstance(volume, Correlation) and torch.compiler.is_exporting():
            volume = volume.volume()  # whole: a graph is made once, for every mask and any number of images
        bias = self.query_conv.bias + self.support_conv.bias
        if isinstance(volume, Correlation):
            return convolve_correlation(volume, *kernels, bias, support_stride)
        whole = pruned = volume
        if support_stride != (1, 1):
            whole, pruned = _Prune.apply(volume, support_stride)
        over_support = convolve_support(whole, kernels[1], support_stride)
        return convolve_query(pruned, kernels[0], bias) + over_support


def convolve_query(volume_BHWUVC: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve over the query's axes, zero-padded by half the kernel (C', C, k, k), k odd."""
    b, h, w, u, v, _ = volume_BHWUVC.shape
    image = volume_BHWUVC.flatten(3).permute(0, 3, 1, 2)
    kernels = kernel.repeat(u * v, 1, 1, 1)
    biases = None if bias is None else bias.repeat(u * v)
    convolved = F.conv2d(image, kernels, biases, padding=kernel.shape[-1] // 2, groups=u * v)
    return convolved.permute(0, 2, 3, 1).reshape(b, h, w, u, v, len(kernel))


def convolve_support(volume_BHWUVC: Tensor, kernel: Tensor, stride: Pair) -> Tensor:
    """Convolve over the support's axes, zero-padded by half the kernel (C', C, k, k), k odd; without bias."""
    b, h, w, u, v, _ = volume_BHWUVC.shape
    images = volume_BHWUVC.flatten(0, 2)
    size = -(-u // stride[0]), -(-v // stride[1])
    if u * v <= DENSE_POSITIONS:
        convolved = linear(images.flatten(1), _matrix(kernel, (u, v), stride))
    else:
        convolved = F.conv2d(images.permute(0, 3, 1, 2), kernel, stride=stride, padding=kernel.shape[-1] // 2)
        convolved = convolved.permute(0, 2, 3, 1)
    return convolved.reshape(b, h, w, *size, len(kernel))


def convolve_correlation(
    correlation: Correlation, query_kernel: Tensor, support_kernel: Tensor, bias: Tensor, stride: Pair
) -> Tensor:
    """Convolve a correlation over both pairs of axes, and add: (B K, H, W, U', V', C').

    What the masks leave empty costs nothing, and the volume never exists as a whole: it is made for a few
    query positions at a time, and, in training, once more in the backward pass.
    """
    kernel_size = support_kernel.shape[-1]
    patches, over_query, over_support = [], [], []
    for number, weights_KLUV in enumerate(correlation.weights):
        patch = _Patch(correlation, number, kernel_size, stride)
        over_support_KXPQO, pruned_KXRSL = _ConvolvePatch.apply(
            patch.cut(weights_KLUV), support_kernel, patch
        )
        pruned = pruned_KXRSL.reshape(-1, *correlation.query_size, *pruned_KXRSL.shape[2:])
        patches.append(patch)
        over_support.append(over_support_KXPQO)
        over_query.append(convolve_query(pruned, query_kernel).flatten(1, 2))
    summed: Tensor = _AddOnGrid.apply(patches, bias, *over_support, *over_query)
    return summed.reshape(len(summed), *correlation.query_size, *summed.shape[2:])


class _Prune(torch.autograd.Function):
    """Give a volume (B, H, W, U, V, C), and its support positions that survive the stride.

    Autograd's own gradient of a slice makes a whole volume of zeros, for each axis, and adds it.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, stride: Pair) -> tuple[Tensor, Tensor]:
        ctx.stride = stride
        return volume.view_as(volume), volume[:, :, :, :: stride[0], :: stride[1]].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_volume: Tensor, d_pruned: Tensor) -> tuple[Tensor, None]:
        summed = d_volume.clone()
        summed[:, :, :, :: ctx.stride[0], :: ctx.stride[1]] += d_pruned
        return summed, None


class _AddOnGrid(torch.autograd.Function):
    """Add what was convolved over the support and over the query, each of a part of its image's windows.

    And the bias (C',), everywhere. Of every patch they are (K, X, P, Q, C'), (K, X, R, S, C'): masks, query
    positions, rows, columns, channels; first the ones of all patches, then the others. The sum is
    (B K, X, U', V', C').
    """

    @staticmethod
    def forward(ctx: Any, patches: "list[_Patch]", bias: Tensor, *convolved: Tensor) -> Tensor:
        ctx.patches, ctx.dtype = patches, bias.dtype
        masks, positions, *_, channels = convolved[0].shape
        grid = patches[0].rows.num_windows, patches[0].columns.num_windows
        summed = convolved[0].new_empty(len(patches), masks, positions, *grid, channels)
        row = bias.to(summed.dtype).repeat(grid[0] * grid[1])  # short rows are many times slower to copy
        summed.flatten(3).copy_(row)
        over_support, over_query = convolved[: len(patches)], convolved[len(patches) :]
        for image, patch, support, query in zip(summed, patches, over_support, over_query, strict=True):
            image[:, :, *patch.meeting] += support
            image[:, :, *patch.grid] += query
        return summed.flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        patches: list[_Patch] = ctx.patches
        images = gradient.reshape(len(patches), -1, *gradient.shape[1:])
        pairs = list(zip(images, patches, strict=True))
        over_support = (image[:, :, *patch.meeting] for image, patch in pairs)
        over_query = (image[:, :, *patch.grid] for image, patch in pairs)
        d_bias = gradient.flatten(0, -2).sum(dim=0, dtype=ctx.dtype)
        return None, d_bias, *over_support, *over_query


class _ConvolvePatch(torch.autograd.Function):
    """Convolve a patch over its support axes; give what survives the stride, too.

    They are (K, X, P, Q, C') and (K, X, R, S, L): masks, query positions, rows, columns, channels or taps.
    """

    @staticmethod
    def forward(ctx: Any, weights_KLUV: Tensor, kernel: Tensor, patch: "_Patch") -> tuple[Tensor, Tensor]:
        convolved, pruned = [], []
        for _, volume_KXLUV in patch.volumes(weights_KLUV):
            images = volume_KXLUV.flatten(0, 1)
            over_support = F.conv2d(images, kernel.to(images.dtype), stride=patch.stride).permute(0, 2, 3, 1)
            convolved.append(over_support.reshape(*volume_KXLUV.shape[:2], *over_support.shape[1:]))
            pruned.append(patch.on_grid(volume_KXLUV).clone(memory_format=torch.contiguous_format))
        ctx.save_for_backward(weights_KLUV, kernel)
        ctx.patch = patch
        found = torch.cat(convolved, dim=1), torch.cat(pruned, dim=1)
        if not ctx.needs_input_grad[0]:
            ctx.mark_non_differentiable(found[1])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_convolved: Tensor, d_pruned: Tensor) -> tuple[Tensor | None, ...]:
        weights_KLUV, kernel = ctx.saved_tensors
        patch: _Patch = ctx.patch
        if ctx.needs_input_grad[0]:
            return *_gradients(weights_KLUV, kernel, patch, d_convolved, d_pruned), None
        d_kernel = torch.zeros_like(kernel)
        for queries, volume_KXLUV in patch.volumes(weights_KLUV):
            gradient = d_convolved[:, queries].flatten(0, 1).permute(0, 3, 1, 2)
            d_kernel += conv2d_weight(volume_KXLUV.flatten(0, 1), kernel.shape, gradient, patch.stride)  # type: ignore[no-untyped-call]
        return None, d_kernel, None


def _gradients(
    weights_KLUV: Tensor, kernel_OLIJ: Tensor, patch: "_Patch", d_convolved: Tensor, d_pruned: Tensor
) -> tuple[Tensor, Tensor]:
    """Give the gradients of weights and kernel.

    Both follow from one product for each window, so that of the volume, by far the largest, is not needed.
    """
    outputs, taps, k, _ = kernel_OLIJ.shape
    ones = weights_KLUV.new_ones(1, 1, *weights_KLUV.shape[2:])
    products_of, d_on_grid_of = [], []  # (K, P Q, O, L I J) and (K, R, S, L) of each chunk
    for queries, volume_1XLUV in patch.volumes(ones):
        windows_PQXLIJ = patch.windows(volume_1XLUV[0]).permute(2, 3, 0, 1, 4, 5)
        gradient = d_convolved[:, queries].flatten(2, 3).permute(0, 2, 3, 1)
        products_of.append(gradient @ windows_PQXLIJ.flatten(3).flatten(0, 1))
        d_on_grid_of.append((d_pruned[:, queries] * patch.on_grid(volume_1XLUV)).sum(dim=1))
    products, d_on_grid = (
        torch.stack(chunks).sum(dim=0, dtype=kernel_OLIJ.dtype) for chunks in (products_of, d_on_grid_of)
    )
    padded_KLUV = patch.pad(weights_KLUV.to(kernel_OLIJ.dtype))
    windows_KLPQIJ = patch.windows(padded_KLUV).expand(-1, taps, -1, -1, -1, -1)
    grid = windows_KLPQIJ.shape[2:4]
    products_KPQOLIJ = products.view(-1, *grid, outputs, taps, k, k)
    d_kernel = torch.einsum("kpqolij,klpqij->olij", products_KPQOLIJ, windows_KLPQIJ)
    d_windows = torch.einsum("kpqolij,olij->klijpq", products_KPQOLIJ, kernel_OLIJ)
    d_padded = F.fold(d_windows.flatten(4).flatten(1, 3), padded_KLUV.shape[2:], k, stride=patch.stride)
    d_padded_on_grid = patch.on_grid(d_padded[:, None]).squeeze(1)  # a view: adding to it changes d_padded
    d_padded_on_grid += d_on_grid
    d_weights = d_padded[:, :, patch.rows.inside, patch.columns.inside]
    return d_weights.sum_to_size(weights_KLUV.shape).to(weights_KLUV.dtype), d_kernel


class _Patch:
    """What masks leave of one support of a batch, with the zeros around it that a kernel's windows reach."""

    def __init__(self, correlation: Correlation, number: int, kernel_size: int, stride: Pair) -> None:
        box, (u, v) = correlation.box(number), correlation.support_size
        self.stride, self.kernel_size = stride, kernel_size
        # From a position that survives the stride on: so there is always one.
        self.rows = Span(box.top - box.top % stride[0], box.bottom, u, kernel_size, stride[0])
        self.columns = Span(box.left - box.left % stride[1], box.right, v, kernel_size, stride[1])
        device, dtype = correlation.weights.device.type, correlation.query[0].dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        self.query = [tap[number].flatten(0, 1).to(dtype) for tap in correlation.query]
        self.support = [
            Factor(tap[number, *self._box].flatten(0, 1).to(dtype)) for tap in correlation.support
        ]
        self.chunk = CHUNK.get(device, CHUNK["cuda"])

    @property
    def _box(self) -> tuple[slice, slice]:
        return slice(self.rows.first, self.rows.last), slice(self.columns.first, self.columns.last)

    @property
    def meeting(self) -> tuple[slice, slice]:
        """The windows that meet a position of the patch."""
        return slice(*self.rows.windows), slice(*self.columns.windows)

    @property
    def grid(self) -> tuple[slice, slice]:
        """The positions of the patch that survive the stride, counted as windows."""
        return self.rows.on_grid, self.columns.on_grid

    def cut(self, weights_KLUV: Tensor) -> Tensor:
        """Cut the patch out of weights of the whole support."""
        return weights_KLUV[:, :, *self._box]

    def pad(self, weights_KLUV: Tensor) -> Tensor:
        """Put the zeros around the patch's weights."""
        padded = weights_KLUV.new_zeros(*weights_KLUV.shape[:2], self.rows.length, self.columns.length)
        padded[:, :, self.rows.inside, self.columns.inside] = weights_KLUV
        return padded

    def volumes(self, weights_KLUV: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Make the weighted correlations (K, X, L, U', V') of some query positions after others.

        A volume is overwritten by the next.
        """
        length = len(self.query[0])
        per_query = len(weights_KLUV) * len(self.query) * self.rows.length * self.columns.length
        step = min(max(self.chunk // per_query, 1), length)
        dtype = self.query[0].dtype
        shape = len(weights_KLUV), step, len(self.query), self.rows.length, self.columns.length
        volume_KXLUV = self.query[0].new_zeros(shape)
        weights_LK1UV = (
            weights_KLUV.to(dtype).transpose(0, 1)[:, :, None].expand(len(self.query), -1, -1, -1, -1)
        )
        for start in range(0, length, step):
            queries = slice(start, min(start + step, length))
            inside = volume_KXLUV[:, : queries.stop - start, :, self.rows.inside, self.columns.inside]
            for tap, weights_K1UV in enumerate(weights_LK1UV):
                cosine_XN = self.support[tap].times(self.query[tap][queries]).relu_()
                torch.mul(cosine_XN.view(-1, *weights_K1UV.shape[2:]), weights_K1UV, out=inside[:, :, tap])
            yield queries, volume_KXLUV[:, : queries.stop - start]

    def windows(self, maps: Tensor) -> Tensor:
        """View what lies under each window: (..., U', V') as (..., P, Q, I, J)."""
        return maps.unfold(-2, self.kernel_size, self.stride[0]).unfold(-2, self.kernel_size, self.stride[1])

    def on_grid(self, volume_KXLUV: Tensor) -> Tensor:
        """View the positions that survive the stride: (K, X, R, S, L)."""
        rows, columns = self.rows.pruned, self.columns.pruned
        return volume_KXLUV[..., rows, columns].permute(0, 1, 3, 4, 2)


class Span(NamedTuple):
    """Where the windows of a strided convolution meet support positions along one axis.

    first, last: the first of these positions, which survives the stride, and one past the last.
    of: positions along the axis.
    """

    first: int
    last: int
    of: int
    kernel_size: int
    stride: int

    @property
    def num_windows(self) -> int:
        """Windows along the whole axis."""
        return -(-self.of // self.stride)

    @property
    def windows(self) -> tuple[int, int]:
        """First window that meets a position, and one past the last; the others see zeros only."""
        reach = self.kernel_size // 2
        return (
            max(-((reach - self.first) // self.stride), 0),
            min((self.last - 1 + reach) // self.stride + 1, self.num_windows),
        )

    @property
    def start(self) -> int:
        """Position at which the first window starts; it may lie outside."""
        return self.windows[0] * self.stride - self.kernel_size // 2

    @property
    def length(self) -> int:
        """Positions from there to the last window's end, or to the last position."""
        first, last = self.windows
        return max((last - first - 1) * self.stride + self.kernel_size, self.last - self.start)

    @property
    def inside(self) -> slice:
        """The positions, counted from `start`."""
        return slice(self.first - self.start, self.last - self.start)

    @property
    def on_grid(self) -> slice:
        """The positions that survive the stride, counted as windows."""
        return slice(self.first // self.stride, -(-self.last // self.stride))

    @property
    def pruned(self) -> slice:
        """The positions that survive the stride, counted from `start`."""
        grid = self.on_grid
        return slice(grid.start * self.stride - self.start, self.last - self.start, self.stride)


def _matrix(kernel: Tensor, positions: Pair, stride: Pair) -> Tensor:
    """Write a padded convolution of (U, V) positions as a matrix (U' V' C', U V C)."""
    rows_PUI, columns_QVJ = (
        _offsets(n, kernel.shape[2], step, kernel.device).to(kernel.dtype)
        for n, step in zip(positions, stride, strict=True)
    )
    spread = torch.einsum("ocij,pui,qvj->pqouvc", kernel, rows_PUI, columns_QVJ)
    return spread.flatten(0, 2).flatten(1)


def _offsets(positions: int, kernel_size: int, stride: int, device: torch.device) -> Tensor:
    """Say which element of the kernel leads from each input to each output: (outputs, inputs, elements)."""
    outputs = torch.arange(0, positions, stride, device=device)
    offset = torch.arange(positions, device=device) - outputs[:, None] + kernel_size // 2
    return offset[:, :, None] == torch.arange(kernel_size, device=device)
