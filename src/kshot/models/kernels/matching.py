"""The center-pivot convolution, fused with the correlation; `conv4d.py` is the plain version.

Volumes have the query axes first and the channels last in memory, (B, H, W, U, V, C), so that neither
convolution copies them: over the query axes, support positions are groups of channels of one image; over the
support axes, query positions are images of a batch.

The volume of a `Correlation` is never stored: it is computed for a few query positions at a time, only inside
the bounding box of the masks, and in training a second time in the backward pass.

Extra suffixes: X query positions, P Q windows of the support convolution, R S support positions that the
stride keeps, I J rows and columns of a kernel.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from kshot.models.hypercorrelation import Correlation
from kshot.models.kernels.onednn import PackedLinear, linear

MAX_DENSE_POSITIONS = 4
"""Support positions up to which a support convolution is one matrix product: on a 2x2 grid a 3x3 kernel
spends more than half of its work on padding."""

CHUNK_SIZE = {"cpu": 2**19, "cuda": 2**26}
"""Correlations held at a time: on a CPU they fit in its cache. Other devices use the value of CUDA."""

Pair = tuple[int, int]


def center_pivot(
    volume: Tensor | Correlation, query_kernel: Tensor, support_kernel: Tensor, bias: Tensor, stride: Pair
) -> Tensor:
    """Convolve (B, C, H, W, U, V) over its query and its support axes, and add: (B, O, H, W, U', V').

    Kernels are (O, C, k, k), k odd, with same padding; bias: (O,). stride: of the support axes.
    """
    if isinstance(volume, Correlation):
        convolved = convolve_correlation(volume, query_kernel, support_kernel, bias, stride)
    else:
        whole = kept = volume.permute(0, 2, 3, 4, 5, 1)
        if stride != (1, 1):
            whole, kept = _Prune.apply(whole, stride)
        over_support = convolve_support(whole, support_kernel, stride)
        convolved = convolve_query(kept, query_kernel, bias) + over_support
    return convolved.permute(0, 5, 1, 2, 3, 4)


def convolve_query(volume_BHWUVC: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve over the query axes: (B, H, W, U, V, O)."""
    b, h, w, u, v, _ = volume_BHWUVC.shape
    image = volume_BHWUVC.flatten(3).permute(0, 3, 1, 2)
    kernels = kernel.repeat(u * v, 1, 1, 1)
    biases = None if bias is None else bias.repeat(u * v)
    convolved = F.conv2d(image, kernels, biases, padding=kernel.shape[-1] // 2, groups=u * v)
    return convolved.permute(0, 2, 3, 1).reshape(b, h, w, u, v, len(kernel))


def convolve_support(volume_BHWUVC: Tensor, kernel: Tensor, stride: Pair) -> Tensor:
    """Convolve over the support axes, without a bias: (B, H, W, U', V', O)."""
    b, h, w, u, v, _ = volume_BHWUVC.shape
    images = volume_BHWUVC.flatten(0, 2)
    size = -(-u // stride[0]), -(-v // stride[1])
    if u * v <= MAX_DENSE_POSITIONS:
        convolved = linear(images.flatten(1), _matrix(kernel, (u, v), stride))
    else:
        convolved = F.conv2d(images.permute(0, 3, 1, 2), kernel, stride=stride, padding=kernel.shape[-1] // 2)
        convolved = convolved.permute(0, 2, 3, 1)
    return convolved.reshape(b, h, w, *size, len(kernel))


def convolve_correlation(
    correlation: Correlation, query_kernel: Tensor, support_kernel: Tensor, bias: Tensor, stride: Pair
) -> Tensor:
    """Convolve a correlation over its query and its support axes, and add: (B K, H, W, U', V', O)."""
    kernel_size = support_kernel.shape[-1]
    patches, over_query, over_support = [], [], []
    for index, masks_KLUV in enumerate(correlation.masks):
        patch = _Patch(correlation, index, kernel_size, stride)
        over_support_KXPQO, kept_KXRSL = _ConvolvePatch.apply(patch.crop(masks_KLUV), support_kernel, patch)
        kept = kept_KXRSL.reshape(-1, *correlation.query_size, *kept_KXRSL.shape[2:])
        patches.append(patch)
        over_support.append(over_support_KXPQO)
        over_query.append(convolve_query(kept, query_kernel).flatten(1, 2))
    summed: Tensor = _SumPatches.apply(patches, bias, *over_support, *over_query)
    return summed.reshape(len(summed), *correlation.query_size, *summed.shape[2:])


class _Prune(torch.autograd.Function):
    """Return a volume (B, H, W, U, V, C), and its support positions that the stride keeps.

    The gradient of a slice in autograd allocates a whole volume of zeros for each axis.
    """

    @staticmethod
    def forward(ctx: Any, volume: Tensor, stride: Pair) -> tuple[Tensor, Tensor]:
        ctx.stride = stride
        return volume.view_as(volume), volume[:, :, :, :: stride[0], :: stride[1]].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_volume: Tensor, d_kept: Tensor) -> tuple[Tensor, None]:
        summed = d_volume.clone()
        summed[:, :, :, :: ctx.stride[0], :: ctx.stride[1]] += d_kept
        return summed, None


class _SumPatches(torch.autograd.Function):
    """Add up the bias (O,) and the convolutions of all patches, each at its windows: (B K, X, U', V', O).

    convolved: (K, X, P, Q, O) of each patch over its support axes, then (K, X, R, S, O) of each over the
    query axes.
    """

    @staticmethod
    def forward(ctx: Any, patches: "list[_Patch]", bias: Tensor, *convolved: Tensor) -> Tensor:
        ctx.patches, ctx.dtype = patches, bias.dtype
        masks, positions, *_, channels = convolved[0].shape
        size = patches[0].rows.num_windows, patches[0].columns.num_windows
        summed = convolved[0].new_empty(len(patches), masks, positions, *size, channels)
        row = bias.to(summed.dtype).repeat(size[0] * size[1])  # broadcasting a short row is many times slower
        summed.flatten(3).copy_(row)
        over_support, over_query = convolved[: len(patches)], convolved[len(patches) :]
        for image, patch, support, query in zip(summed, patches, over_support, over_query, strict=True):
            image[:, :, *patch.windows] += support
            image[:, :, *patch.kept] += query
        return summed.flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        patches: list[_Patch] = ctx.patches
        images = gradient.reshape(len(patches), -1, *gradient.shape[1:])
        pairs = list(zip(images, patches, strict=True))
        over_support = (image[:, :, *patch.windows] for image, patch in pairs)
        over_query = (image[:, :, *patch.kept] for image, patch in pairs)
        d_bias = gradient.flatten(0, -2).sum(dim=0, dtype=ctx.dtype)
        return None, d_bias, *over_support, *over_query


class _ConvolvePatch(torch.autograd.Function):
    """Return a patch convolved over its support axes, and its positions that the stride keeps.

    They are (K, X, P, Q, O) and (K, X, R, S, L).
    """

    @staticmethod
    def forward(ctx: Any, masks_KLUV: Tensor, kernel: Tensor, patch: "_Patch") -> tuple[Tensor, Tensor]:
        convolved, kept = [], []
        for _, volume_KXLUV in patch.volumes(masks_KLUV):
            images = volume_KXLUV.flatten(0, 1)
            over_support = F.conv2d(images, kernel.to(images.dtype), stride=patch.stride).permute(0, 2, 3, 1)
            convolved.append(over_support.reshape(*volume_KXLUV.shape[:2], *over_support.shape[1:]))
            kept.append(patch.prune(volume_KXLUV).clone(memory_format=torch.contiguous_format))
        ctx.save_for_backward(masks_KLUV, kernel)
        ctx.patch = patch
        results = torch.cat(convolved, dim=1), torch.cat(kept, dim=1)
        if not ctx.needs_input_grad[0]:
            ctx.mark_non_differentiable(results[1])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_convolved: Tensor, d_kept: Tensor) -> tuple[Tensor | None, ...]:
        masks_KLUV, kernel = ctx.saved_tensors
        patch: _Patch = ctx.patch
        if ctx.needs_input_grad[0]:
            return *_gradients(masks_KLUV, kernel, patch, d_convolved, d_kept), None
        d_kernel = torch.zeros_like(kernel)
        for queries, volume_KXLUV in patch.volumes(masks_KLUV):
            gradient = d_convolved[:, queries].flatten(0, 1).permute(0, 3, 1, 2)
            d_kernel += conv2d_weight(volume_KXLUV.flatten(0, 1), kernel.shape, gradient, patch.stride)  # type: ignore[no-untyped-call]
        return None, d_kernel, None


def _gradients(
    masks_KLUV: Tensor, kernel_OLIJ: Tensor, patch: "_Patch", d_convolved: Tensor, d_kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of masks and kernel.

    Both follow from one product per window, so the volume's own gradient, by far the largest, is not needed.
    """
    outputs, taps, k, _ = kernel_OLIJ.shape
    ones = masks_KLUV.new_ones(1, 1, *masks_KLUV.shape[2:])
    all_products, all_d_on_kept = [], []  # of each chunk (K, P Q, O, L I J) and (K, R, S, L)
    for queries, volume_1XLUV in patch.volumes(ones):
        windows_PQXLIJ = patch.unfold(volume_1XLUV[0]).permute(2, 3, 0, 1, 4, 5)
        gradient = d_convolved[:, queries].flatten(2, 3).permute(0, 2, 3, 1)
        all_products.append(gradient @ windows_PQXLIJ.flatten(3).flatten(0, 1))
        all_d_on_kept.append((d_kept[:, queries] * patch.prune(volume_1XLUV)).sum(dim=1))
    products, d_on_kept = (
        torch.stack(chunks).sum(dim=0, dtype=kernel_OLIJ.dtype) for chunks in (all_products, all_d_on_kept)
    )
    padded_KLUV = patch.pad(masks_KLUV.to(kernel_OLIJ.dtype))
    windows_KLPQIJ = patch.unfold(padded_KLUV).expand(-1, taps, -1, -1, -1, -1)
    size = windows_KLPQIJ.shape[2:4]
    products_KPQOLIJ = products.view(-1, *size, outputs, taps, k, k)
    d_kernel = torch.einsum("kpqolij,klpqij->olij", products_KPQOLIJ, windows_KLPQIJ)
    d_windows = torch.einsum("kpqolij,olij->klijpq", products_KPQOLIJ, kernel_OLIJ)
    d_padded = F.fold(d_windows.flatten(4).flatten(1, 3), padded_KLUV.shape[2:], k, stride=patch.stride)
    d_padded_at_kept = patch.prune(d_padded[:, None]).squeeze(1)  # a view: the sum goes into d_padded
    d_padded_at_kept += d_on_kept
    d_masks = d_padded[:, :, patch.rows.inside, patch.columns.inside]
    return d_masks.sum_to_size(masks_KLUV.shape).to(masks_KLUV.dtype), d_kernel


class Box(NamedTuple):
    """Support rows and columns, the first and one past the last."""

    top: int
    bottom: int
    left: int
    right: int


def mask_box(masks_KLUV: Tensor) -> Box:
    """Return the bounding box of all masks of a support; one position if they are empty.

    Masks with a gradient have one at zero, too: their box is the whole support.
    """
    u, v = masks_KLUV.shape[2:]
    if masks_KLUV.requires_grad:
        return Box(0, u, 0, v)
    is_inside_UV = (masks_KLUV > 0).flatten(0, 1).any(dim=0)
    rows, columns = (is_inside_UV.any(dim=axis).nonzero()[:, 0].tolist() or [0] for axis in (1, 0))
    return Box(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)


class _Patch:
    """The box of one support's masks, padded to what the windows of the support convolution cover."""

    def __init__(self, correlation: Correlation, index: int, kernel_size: int, stride: Pair) -> None:
        box, (u, v) = mask_box(correlation.masks[index]), correlation.support_size
        self.stride, self.kernel_size = stride, kernel_size
        # It starts at a position that the stride keeps, so that there is always one.
        self.rows = Span(box.top - box.top % stride[0], box.bottom, u, kernel_size, stride[0])
        self.columns = Span(box.left - box.left % stride[1], box.right, v, kernel_size, stride[1])
        device, dtype = correlation.masks.device.type, correlation.query[0].dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        self.query = [tap[index].flatten(0, 1).to(dtype) for tap in correlation.query]
        self.support = [
            PackedLinear(tap[index, *self._box].flatten(0, 1).to(dtype)) for tap in correlation.support
        ]
        self.chunk_size = CHUNK_SIZE.get(device, CHUNK_SIZE["cuda"])

    @property
    def _box(self) -> tuple[slice, slice]:
        return slice(self.rows.first, self.rows.last), slice(self.columns.first, self.columns.last)

    @property
    def windows(self) -> tuple[slice, slice]:
        """The windows that overlap the patch."""
        return slice(*self.rows.windows), slice(*self.columns.windows)

    @property
    def kept(self) -> tuple[slice, slice]:
        """The windows whose centers are in the patch: its positions that the stride keeps."""
        return self.rows.kept, self.columns.kept

    def crop(self, masks_KLUV: Tensor) -> Tensor:
        """Crop masks of the whole support to the patch."""
        return masks_KLUV[:, :, *self._box]

    def pad(self, masks_KLUV: Tensor) -> Tensor:
        """Pad masks of the patch with zeros."""
        padded = masks_KLUV.new_zeros(*masks_KLUV.shape[:2], self.rows.length, self.columns.length)
        padded[:, :, self.rows.inside, self.columns.inside] = masks_KLUV
        return padded

    def volumes(self, masks_KLUV: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the padded, masked correlations (K, X, L, U', V') of a few query positions at a time (eq. 3).

        Each volume is overwritten by the next.
        """
        num_queries = len(self.query[0])
        size_per_query = len(masks_KLUV) * len(self.query) * self.rows.length * self.columns.length
        step = min(max(self.chunk_size // size_per_query, 1), num_queries)
        dtype = self.query[0].dtype
        shape = len(masks_KLUV), step, len(self.query), self.rows.length, self.columns.length
        volume_KXLUV = self.query[0].new_zeros(shape)
        masks_LK1UV = masks_KLUV.to(dtype).transpose(0, 1)[:, :, None].expand(len(self.query), -1, -1, -1, -1)
        for start in range(0, num_queries, step):
            queries = slice(start, min(start + step, num_queries))
            inside = volume_KXLUV[:, : queries.stop - start, :, self.rows.inside, self.columns.inside]
            for tap, masks_K1UV in enumerate(masks_LK1UV):
                cosines_XN = self.support[tap](self.query[tap][queries]).relu_()
                torch.mul(cosines_XN.view(-1, *masks_K1UV.shape[2:]), masks_K1UV, out=inside[:, :, tap])
            yield queries, volume_KXLUV[:, : queries.stop - start]

    def unfold(self, maps: Tensor) -> Tensor:
        """View (..., U', V') as windows (..., P, Q, I, J)."""
        return maps.unfold(-2, self.kernel_size, self.stride[0]).unfold(-2, self.kernel_size, self.stride[1])

    def prune(self, volume_KXLUV: Tensor) -> Tensor:
        """View the positions that the stride keeps: (K, X, R, S, L)."""
        rows, columns = self.rows.kept_inside, self.columns.kept_inside
        return volume_KXLUV[..., rows, columns].permute(0, 1, 3, 4, 2)


class Span(NamedTuple):
    """One axis of a patch: where the windows of a strided convolution overlap it.

    first, last: its first position, which the stride keeps, and one past its last. axis_length: positions of
    the whole axis.
    """

    first: int
    last: int
    axis_length: int
    kernel_size: int
    stride: int

    @property
    def num_windows(self) -> int:
        """The number of windows on the whole axis."""
        return -(-self.axis_length // self.stride)

    @property
    def windows(self) -> tuple[int, int]:
        """The first window that overlaps the span, and one past the last; all others see zeros."""
        reach = self.kernel_size // 2
        return (
            max(-((reach - self.first) // self.stride), 0),
            min((self.last - 1 + reach) // self.stride + 1, self.num_windows),
        )

    @property
    def start(self) -> int:
        """The position at which the first window starts; it may lie outside of the axis."""
        return self.windows[0] * self.stride - self.kernel_size // 2

    @property
    def length(self) -> int:
        """The number of positions from `start` to the end of the last window, or to the end of the span."""
        first, last = self.windows
        return max((last - first - 1) * self.stride + self.kernel_size, self.last - self.start)

    @property
    def inside(self) -> slice:
        """The span, counted from `start`."""
        return slice(self.first - self.start, self.last - self.start)

    @property
    def kept(self) -> slice:
        """The positions that the stride keeps, as numbers of windows."""
        return slice(self.first // self.stride, -(-self.last // self.stride))

    @property
    def kept_inside(self) -> slice:
        """The positions that the stride keeps, counted from `start`."""
        return slice(self.kept.start * self.stride - self.start, self.last - self.start, self.stride)


def _matrix(kernel: Tensor, positions: Pair, stride: Pair) -> Tensor:
    """Return a padded convolution of (U, V) positions as a matrix (U' V' O, U V C)."""
    rows_PUI, columns_QVJ = (
        _offsets(n, kernel.shape[2], step, kernel.device).to(kernel.dtype)
        for n, step in zip(positions, stride, strict=True)
    )
    spread = torch.einsum("ocij,pui,qvj->pqouvc", kernel, rows_PUI, columns_QVJ)
    return spread.flatten(0, 2).flatten(1)


def _offsets(positions: int, kernel_size: int, stride: int, device: torch.device) -> Tensor:
    """Return which kernel element connects each input to each output: bool (outputs, inputs, elements)."""
    outputs = torch.arange(0, positions, stride, device=device)
    offset = torch.arange(positions, device=device) - outputs[:, None] + kernel_size // 2
    return offset[:, :, None] == torch.arange(kernel_size, device=device)
