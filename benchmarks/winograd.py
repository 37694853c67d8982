"""Winograd's way of convolving, F(4x4, 3x3) (Lavin & Gray 2016): tried, and left out of kshot.

A quarter of the multiplications, for sums before and after. Axis letters: P tiles, C channels, O outputs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.models.kernels.onednn import Factor

TILE, WINDOW = 4, 6
# Cook and Toom's matrices for the points 0, 1, -1, 2, -2 and infinity.
OF_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1.0],
    ]
)
OF_KERNEL = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
OF_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1.0]]
)


def transform(kernel_OCKL: Tensor) -> list[Factor]:
    """Make the 36 matrices (O, C) that tiles are multiplied by; once for a kernel that does not change."""
    points = torch.einsum("ak,bl,ockl->aboc", OF_KERNEL, OF_KERNEL, kernel_OCKL)
    return [Factor(matrix.contiguous()) for matrix in points.flatten(0, 1)]


def convolve(image_1CHW: Tensor, matrices: list[Factor]) -> Tensor:
    """Convolve a channels-last image with a 3x3 kernel, zero-padded: (1, O, H, W)."""
    _, channels, height, width = image_1CHW.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded_HWC = F.pad(
        image_1CHW[0].permute(1, 2, 0), (0, 0, 1, TILE * columns + 1 - width, 1, TILE * rows + 1 - height)
    )
    windows = padded_HWC.unfold(0, WINDOW, TILE).unfold(1, WINDOW, TILE).permute(3, 4, 0, 1, 2)
    points = torch.kron(OF_INPUT, OF_INPUT) @ windows.reshape(WINDOW**2, -1)
    tiles_PC = points.view(WINDOW**2, rows * columns, channels)
    products = torch.stack([matrix.times(tile) for matrix, tile in zip(matrices, tiles_PC, strict=True)])
    found = (torch.kron(OF_OUTPUT, OF_OUTPUT) @ products.flatten(1)).view(TILE, TILE, rows, columns, -1)
    whole_HWO = found.permute(2, 0, 3, 1, 4).reshape(TILE * rows, TILE * columns, -1)
    return whole_HWO[:height, :width].permute(2, 0, 1)[None]
