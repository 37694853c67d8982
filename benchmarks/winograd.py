"""Winograd's convolution F(4x4, 3x3) (Lavin & Gray 2016): tried, and not used by kshot.

It has a quarter of the multiplications, but more sums. Shape suffixes: P tiles, C channels, O outputs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.models.kernels.onednn import PackedLinear

TILE, WINDOW = 4, 6
# Cook-Toom matrices of the points 0, 1, -1, 2, -2 and infinity.
INPUT_TRANSFORM = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1.0],
    ]
)
KERNEL_TRANSFORM = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
OUTPUT_TRANSFORM = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1.0]]
)


def transform(kernel_OCKL: Tensor) -> list[PackedLinear]:
    """Return the 36 matrices (O, C) that tiles are multiplied by, computed once for a fixed kernel."""
    points = torch.einsum("ak,bl,ockl->aboc", KERNEL_TRANSFORM, KERNEL_TRANSFORM, kernel_OCKL)
    return [PackedLinear(matrix.contiguous()) for matrix in points.flatten(0, 1)]


def convolve(image_1CHW: Tensor, matrices: list[PackedLinear]) -> Tensor:
    """Convolve a channels_last image with a 3x3 kernel, padded with zeros: (1, O, H, W)."""
    _, channels, height, width = image_1CHW.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded_HWC = F.pad(
        image_1CHW[0].permute(1, 2, 0), (0, 0, 1, TILE * columns + 1 - width, 1, TILE * rows + 1 - height)
    )
    windows = padded_HWC.unfold(0, WINDOW, TILE).unfold(1, WINDOW, TILE).permute(3, 4, 0, 1, 2)
    points = torch.kron(INPUT_TRANSFORM, INPUT_TRANSFORM) @ windows.reshape(WINDOW**2, -1)
    tiles_PC = points.view(WINDOW**2, rows * columns, channels)
    products = torch.stack([matrix(tile) for matrix, tile in zip(matrices, tiles_PC, strict=True)])
    outputs = (torch.kron(OUTPUT_TRANSFORM, OUTPUT_TRANSFORM) @ products.flatten(1)).view(
        TILE, TILE, rows, columns, -1
    )
    whole_HWO = outputs.permute(2, 0, 3, 1, 4).reshape(TILE * rows, TILE * columns, -1)
    return whole_HWO[:height, :width].permute(2, 0, 1)[None]
