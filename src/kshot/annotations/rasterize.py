"""What annotation tools draw -> masks: polygons, boxes, ellipses and run lengths.

Coordinates are (x, y) in pixels, from the picture's upper left corner. What lies beyond its edges is cut off.
Files come from anywhere: what would need much memory, or crash a rasteriser, is refused here.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import KshotError, MaskError

Mask = NDArray[np.bool_]
Size = tuple[int, int]
"""Height and width in pixels."""

Point = tuple[float, float]

REACH = 10
"""How many times its larger side a point may lie beyond the picture; farther ones are mistakes."""

MAX_LENGTH = 20_000_000
"""Pixels along all edges of a polygon; pycocotools keeps some tens of bytes for each."""

MAX_SHIFT = 60
"""Bits of one run length: far more than any picture has pixels."""

ELLIPSE_POINTS = 360


def fill(polygons: Iterable[Sequence[Point]], size: Size) -> Mask:
    """Rasterise the union of polygons as COCO's own tools do. Raises MaskError for what cannot be drawn."""
    flat = [[value for point in checked(polygon, size) for value in point] for polygon in polygons]
    if not flat:
        return np.zeros(size, dtype=bool)
    masks = coco_masks()
    decoded: Mask = masks.decode(masks.merge(masks.frPyObjects(flat, *size))).astype(bool)
    return decoded


def checked(points: Sequence[Point], size: Size, fewest: int = 3) -> Sequence[Point]:
    """Give points back that can be drawn. Raises MaskError for too few, or some that are nowhere near."""
    if len(points) < fewest:
        raise MaskError(f"An outline has {len(points)} points; it needs {fewest}.")
    height, width = size
    reach = REACH * max(size)
    for x, y in points:
        if not (-reach <= x <= width + reach and -reach <= y <= height + reach):  # catches NaN too
            raise MaskError(
                f"An outline has the point ({str(x)[:20]}, {str(y)[:20]}), nowhere near the picture of "
                f"{width} x {height} pixels."
            )
    steps = np.abs(np.diff(np.asarray(points, dtype=np.float64), axis=0, append=[points[0]]))
    if steps.max(axis=1).sum() > MAX_LENGTH:
        raise MaskError(f"An outline of {len(points)} points is too long to draw: above {MAX_LENGTH} pixels.")
    return points


def box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """Give a box as a polygon, clockwise from its upper left corner."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> list[Point]:
    """Give an ellipse around (x, y) as a polygon."""
    angles = [2 * math.pi * n / ELLIPSE_POINTS for n in range(ELLIPSE_POINTS)]
    return [(x + radius_x * math.cos(angle), y + radius_y * math.sin(angle)) for angle in angles]


def rotated(points: Iterable[Point], degrees: float, around: Point) -> list[Point]:
    """Turn points clockwise, as one sees them, around another."""
    if not math.isfinite(degrees):
        raise MaskError(f"A rotation is {degrees}; it must be a number of degrees.")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x0, y0 = around
    return [(x0 + cos * (x - x0) - sin * (y - y0), y0 + sin * (x - x0) + cos * (y - y0)) for x, y in points]


def unroll(counts: Sequence[int], length: int) -> Mask:
    """Turn run lengths, the background's first, into `length` bools. Raises MaskError for another sum."""
    if any(not isinstance(count, int) or count < 0 for count in counts) or sum(counts) != length:
        raise MaskError(f"Run lengths do not add up to the {length} pixels of their mask: it is damaged.")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def coco_run_lengths(text: str) -> list[int]:
    """Read the run lengths of COCO's compressed strings: five bits a character, the lowest first.

    From the fourth number on, each is the difference to the one before the last. Raises MaskError for a
    damaged string.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > MAX_SHIFT:
            raise MaskError(f"Compressed run lengths hold {character!r} at the wrong place: damaged.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue  # more of this number follows
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise MaskError("Compressed run lengths end within a number; the file is damaged.")
    return counts


def coco_masks() -> Any:
    """Give pycocotools' masks. Raises KshotError if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise KshotError("COCO's outlines need pycocotools: pip install 'kshot[formats]'.") from error
    return mask
