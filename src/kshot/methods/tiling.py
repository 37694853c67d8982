"""Large images: windows that overlap, and answers that are blended where they meet."""

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
"""Part of a tile's side that it shares with the next, at least."""

MIN_TILE = 33
"""Smallest side of a tile in pixels: that of the smallest image that a network matches well."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, as pictures are cropped."""


class Window(NamedTuple):
    """A part of an image: where it is, and how much each of its rows and columns counts there.

    down: (height,), across: (width,).
    """

    top: int
    left: int
    down: NDArray[np.float64]
    across: NDArray[np.float64]

    @property
    def weights(self) -> FloatMap:
        """How much each pixel counts, (height, width); those of all windows sum to 1 at every pixel."""
        return np.outer(self.down, self.across).astype(np.float32)

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + len(self.down)), slice(self.left, self.left + len(self.across))

    @property
    def box(self) -> Box:
        """Left, top, right and bottom, as pictures are cropped."""
        rows, columns = self.place
        return columns.start, rows.start, columns.stop, rows.stop


def cut(size: tuple[int, int], tile: int | None) -> list[Window]:
    """Cut an image of `size` = (height, width) into windows of at most `tile` pixels a side, evenly.

    None: one window. A window fades out towards its neighbours, and not at the image's own border.
    """
    rows, columns = (list(_spans(length, tile or length)) for length in size)
    return [Window(top, left, down, across) for top, down in rows for left, across in columns]


def blend(
    size: tuple[int, int], tile: int, count: int, answer: Callable[[Window], Sequence[FloatMap]]
) -> Iterator[FloatMap]:
    """Answer an image window by window; give `count` blended maps in strips, from the top down.

    answer: gives a window's maps, each of the window's size. A strip is (count, rows, width): those rows that
    no further window touches, so that no more than two rows of windows are kept.
    """
    rows = [(top, list(row)) for top, row in groupby(cut(size, tile), attrgetter("top"))]
    ends = [top for top, _ in rows[1:]] + [size[0]]
    begun = np.zeros((count, min(tile, size[0]), size[1]), np.float32)
    for (top, row), end in zip(rows, ends, strict=True):
        for window in row:
            _, columns = window.place
            weights = window.weights
            for one, answered in zip(begun, answer(window), strict=True):
                one[:, columns] += answered * weights
        following = np.zeros_like(begun)
        following[:, : top - end] = begun[:, end - top :]
        yield begun[:, : end - top]
        begun = following


def around(mask: NDArray[np.bool_], tile: int | None) -> Box:
    """Choose the window of a support, as pictures are cropped: `tile` pixels a side around its object.

    The object is then seen as large as in the tiles of a query. mask: (H, W), not empty. None: all of it.
    """
    height, width = mask.shape
    if tile is None:
        return 0, 0, width, height
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    middle = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
    if max(np.ptp(rows), np.ptp(columns)) >= tile:  # too large: so that some of it is seen
        middle = _nearest(mask, rows, middle)
    (top, bottom), (left, right) = (
        _place(float(m), n, tile) for m, n in zip(middle, mask.shape, strict=True)
    )
    return left, top, right, bottom


def tile_for(size: tuple[int, int], tile: int | None, long_side: int | None) -> int | None:
    """Give the side of an image's windows in its own pixels, `tile` of them if it were `long_side` long.

    An image that is no longer than that is not enlarged. None: the image is read whole, or as it is.
    """
    if tile is None or long_side is None:
        return tile
    return round(tile * max(1, max(size) / long_side))


def check_tile(tile: int | None, long_side: int | None = None) -> None:
    """Raise ImageError for tiles that are too small, or images that are not longer than one."""
    if tile is not None and tile < MIN_TILE:
        raise ImageError(f"tile is {tile}; it must be at least {MIN_TILE} pixels.")
    if tile is not None and long_side is not None and long_side < tile:
        raise ImageError(
            f"long_side is {long_side}, but one tile is {tile} pixels; it must be at least as many, or else "
            "leave it out: images are then read whole."
        )


def _spans(length: int, tile: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Cut one axis: each part's start, and its weights."""
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
    """Find the object's pixel that is nearest to a position, row by row: a large mask has many."""

    def in_row(row: int) -> tuple[float, float]:
        columns = np.flatnonzero(mask[row])
        return float(row), float(columns[np.abs(columns - middle[1]).argmin()])

    return min(map(in_row, rows), key=lambda place: math.dist(place, middle))


def _place(middle: float, length: int, tile: int) -> tuple[int, int]:
    """Place a window of one axis around a position, inside of the image."""
    tile = min(tile, length)
    start = min(max(round(middle - tile / 2), 0), length - tile)
    return start, start + tile
