"""The first convolution of PSPNet's head, without making the pooled maps as large as the features.

Extra suffixes: I J rows and columns of a pooled map, Y X of the features, K M of the convolution's kernel.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.models.hypercorrelation import resize


def convolve_pooled(features: Tensor, pooled: Sequence[Tensor], kernel: Tensor) -> Tensor:
    """Return the 3x3 convolution of features and pooled maps, resized and concatenated: (B, O, h, w).

    The sum of one convolution per part is the same, with half of the operations.
    """
    kernels = torch.split(kernel, [part.shape[1] for part in (features, *pooled)], dim=1)
    convolved = F.conv2d(features, kernels[0], padding=1)
    for maps, part in zip(pooled, kernels[1:], strict=True):
        convolved = convolved + convolve_resized(maps, part, features.shape[-2:])
    return convolved


def convolve_resized(maps_BCIJ: Tensor, kernel_OCKM: Tensor, size: torch.Size) -> Tensor:
    """Resize maps to `size` = (height, width) and convolve them with same padding: (B, O, Y, X).

    Both steps are linear, so channels are mixed at the few positions before resizing.
    """
    rows_KYI, columns_MXJ = (
        _shifted_resize(maps_BCIJ, axis, size[axis], kernel_OCKM.shape[axis]) for axis in (-2, -1)
    )
    mixed = torch.einsum("bcij,ockm->bokmij", maps_BCIJ, kernel_OCKM)
    wide = torch.einsum("bokmij,mxj->bokix", mixed, columns_MXJ)
    return torch.einsum("bokix,kyi->boyx", wide, rows_KYI)


def _shifted_resize(maps: Tensor, axis: int, new_length: int, kernel_size: int) -> Tensor:
    """Return matrices (K, new length, length) that resize one axis and shift it by each kernel offset."""
    length = maps.shape[axis]
    dtype = torch.promote_types(maps.dtype, torch.float32)
    identity = torch.eye(length, dtype=dtype, device=maps.device)
    matrix = resize(identity[None, :, :, None], (new_length, 1))[0, :, :, 0].T
    padded = F.pad(matrix, (0, 0, kernel_size // 2, kernel_size // 2))
    return torch.stack([padded[shift : shift + new_length] for shift in range(kernel_size)]).to(maps.dtype)
