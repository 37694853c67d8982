"""Large images: overlapping windows, whose results are blended."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageError
from kshot.types import FloatMap

OVERLAP = 0.25
"""Smallest share of a tile's side that overlaps with the next tile."""

MIN_TILE = 33
"""Smallest side of a tile in pixels, below which networks match badly."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, as `Image.crop` takes them."""


class Window(NamedTuple):
    """A part of an image: its position, and the weights of its rows and columns.

    down: (height,), across: (width,).
    """

    top: int
    left: int
    down: NDArray[np.float64]
    across: NDArray[np.float64]

    @property
    def weights(self) -> FloatMap:
        """Weight of each pixel, (height, width); the weights of all windows sum to 1 at every pixel."""
        return np.outer(self.down, self.across).astype(np.float32)

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + len(self.down)), slice(self.left, self.left + len(self.across))

    @property
    def box(self) -> Box:
        """Left, top, right and bottom, as `Image.crop` takes them."""
        rows, columns = self.place
        return columns.start, rows.start, columns.stop, rows.stop


def cut(size: tuple[int, int], tile: int | None) -> list[Window]:
    """Return evenly spaced windows of at most `tile` pixels per side. size: the image's (height, width).

    None: one window. Weights fall towards neighbouring windows, but not at the image's own border.
    """
    rows, columns = (list(_spans(length, tile or length)) for length in size)
    return [Window(top, left, down, across) for top, down in rows for left, across in columns]


def blend(
    size: tuple[int, int], tile: int, count: int, predict: Callable[[Window], Sequence[FloatMap]]
) -> Iterator[FloatMap]:
    """Predict an image window by window; yield `count` blended maps in strips, from the top down.

    predict: returns the maps of a window, each of the window's size. A strip is (count, rows, width), the
    rows that no further window covers, so that at most two rows of windows are in memory.
    """
    rows = [(top, list(row)) for top, row in groupby(cut(size, tile), attrgetter("top"))]
    ends = [top for top, _ in rows[1:]] + [size[0]]
    begun = np.zeros((count, min(tile, size[0]), size[1]), np.float32)
    for (top, row), end in zip(rows, ends, strict=True):
        for window in row:
            _, columns = window.place
            weights = window.weights
            for one, predicted in zip(begun, predict(window), strict=True):
                one[:, columns] += predicted * weights
        following = np.zeros_like(begun)
        following[:, : top - end] = begun[:, end - top :]
        yield begun[:, : end - top]
        begun = following


def around(mask: NDArray[np.bool_], tile: int | None) -> Box:
    """Return the crop of a support image: `tile` pixels per side around its object.

    The object then has the same scale as in the tiles of a query. mask: (H, W), not empty. None: no crop.
    """
    height, width = mask.shape
    if tile is None:
        return 0, 0, width, height
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    middle = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
    if max(np.ptp(rows), np.ptp(columns)) >= tile:  # too large: center on a pixel of the object
        middle = _nearest(mask, rows, middle)
    (top, bottom), (left, right) = (
        _place(float(m), n, tile) for m, n in zip(middle, mask.shape, strict=True)
    )
    return left, top, right, bottom


def tile_for(size: tuple[int, int], tile: int | None, long_side: int | None) -> int | None:
    """Return the side of an image's windows in its own pixels: `tile` pixels after scaling to `long_side`.

    Smaller images are not enlarged. None: the image is segmented in one window.
    """
    if tile is None or long_side is None:
        return tile
    return round(tile * max(1, max(size) / long_side))


def check_tile(tile: int | None, long_side: int | None = None) -> None:
    """Raise ImageError for a tile that is too small, or a `long_side` shorter than a tile."""
    if tile is not None and tile < MIN_TILE:
        raise ImageError(f"tile is {tile}; it must be at least {MIN_TILE} pixels.")
    if tile is not None and long_side is not None and long_side < tile:
        raise ImageError(
            f"long_side is {long_side}, but one tile is {tile} pixels; it must be at least as many. "
            "Without long_side, images are segmented at their own size."
        )


def _spans(length: int, tile: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield the start and the weights of each part of one axis."""
    tile = min(tile, length)
    least = round(OVERLAP * tile)
    number = 1 if tile == length else -(-(length - least) // (tile - least))
    starts = np.linspace(0, length - tile, number).round().astype(int).tolist()
    ramps = [_ramp(tile, start > 0, start + tile < length, least) for start in starts]
    total = np.zeros(length)
    for start, ramp in zip(starts, ramps, strict=True):
        total[start : start + tile] += ramp
    for start, ramp in zip(starts, ramps, strict=True):
        yield start, ramp / total[start : start + tile]


def _ramp(tile: int, fades_in: bool, fades_out: bool, over: int) -> NDArray[np.float64]:
    position = np.arange(tile)
    rise = np.minimum((position + 1) / (over + 1), 1.0)
    return (rise if fades_in else 1.0) * (rise[::-1] if fades_out else np.ones(tile))


def _nearest(
    mask: NDArray[np.bool_], rows: NDArray[np.intp], middle: tuple[float, float]
) -> tuple[float, float]:
    """Return the object's pixel that is nearest to a position; row by row, as large masks have many."""

    def in_row(row: int) -> tuple[float, float]:
        columns = np.flatnonzero(mask[row])
        return float(row), float(columns[np.abs(columns - middle[1]).argmin()])

    return min(map(in_row, rows), key=lambda place: math.dist(place, middle))


def _place(middle: float, length: int, tile: int) -> tuple[int, int]:
    """Return the bounds of a window of one axis around a position, inside the image."""
    tile = min(tile, length)
    start = min(max(round(middle - tile / 2), 0), length - tile)
    return start, start + tile
