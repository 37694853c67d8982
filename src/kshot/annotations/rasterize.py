"""Rasterize what annotation tools draw: polygons, boxes, ellipses and run lengths become masks.

Coordinates are (x, y) in pixels, from the image's upper left corner; shapes are clipped to the image. Input
is untrusted: shapes that would need much memory or crash a library are refused.
"""

import base64
import binascii
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageError, MaskError
from kshot.io.extras import import_extra

Mask = NDArray[np.bool_]
Size = tuple[int, int]
"""Height and width in pixels."""

Point = tuple[float, float]

MAX_DISTANCE = 10
"""How far outside the image a point may lie, in multiples of the image's longer side."""

MAX_LENGTH = 20_000_000
"""Pixels along all edges of a polygon; pycocotools needs some tens of bytes for each."""

MAX_SHIFT = 60
"""Bits of one run length: far more than any image has pixels."""

ELLIPSE_POINTS = 360


def fill_polygons(polygons: Iterable[Sequence[Point]], size: Size) -> Mask:
    """Return the union of polygons, rasterized as COCO does. Raises MaskError if one cannot be drawn."""
    flat = [[value for point in check_points(polygon, size) for value in point] for polygon in polygons]
    if not flat:
        return np.zeros(size, dtype=bool)
    coco = pycocotools_mask()
    decoded: Mask = coco.decode(coco.merge(coco.frPyObjects(flat, *size))).astype(bool)
    return decoded


def check_points(points: Sequence[Point], size: Size, fewest: int = 3) -> Sequence[Point]:
    """Return the points. Raises MaskError for too few, for one far outside, or for a very long outline."""
    if len(points) < fewest:
        raise MaskError(f"An outline has {len(points)} points; it needs {fewest}.")
    height, width = size
    margin = MAX_DISTANCE * max(size)
    for x, y in points:
        if not (-margin <= x <= width + margin and -margin <= y <= height + margin):  # also true for NaN
            raise MaskError(
                f"An outline has the point ({str(x)[:20]}, {str(y)[:20]}), nowhere near the image of "
                f"{width} x {height} pixels."
            )
    steps = np.abs(np.diff(np.asarray(points, dtype=np.float64), axis=0, append=[points[0]]))
    if steps.max(axis=1).sum() > MAX_LENGTH:
        raise MaskError(f"An outline of {len(points)} points is too long to draw: above {MAX_LENGTH} pixels.")
    return points


def outline_fault(points: Sequence[Point], size: Size | None) -> str:
    """Return why an outline cannot show a pixel of its image, or "". size: None if it is not known."""
    if len(points) < 3:
        return "of fewer than 3 points"
    if size is not None:
        (left, top), (right, bottom) = (
            tuple(pick(axis) for axis in zip(*points, strict=True)) for pick in (min, max)
        )
        if right < 0 or bottom < 0 or left > size[1] or top > size[0]:
            return "outside of its image"
    return ""


def box_polygon(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """Return a box as a polygon, clockwise from its upper left corner."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def ellipse_polygon(x: float, y: float, radius_x: float, radius_y: float) -> list[Point]:
    """Return an ellipse around (x, y) as a polygon."""
    angles = [2 * math.pi * n / ELLIPSE_POINTS for n in range(ELLIPSE_POINTS)]
    return [(x + radius_x * math.cos(angle), y + radius_y * math.sin(angle)) for angle in angles]


def rotate(points: Iterable[Point], degrees: float, centre: Point) -> list[Point]:
    """Return points rotated clockwise around `centre`. Raises MaskError if degrees are not finite."""
    if not math.isfinite(degrees):
        raise MaskError(f"A rotation is {degrees}; it must be a number of degrees.")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x0, y0 = centre
    return [(x0 + cos * (x - x0) - sin * (y - y0), y0 + sin * (x - x0) + cos * (y - y0)) for x, y in points]


def decode_run_lengths(counts: Sequence[int], length: int) -> Mask:
    """Return run lengths, the background's first, as `length` bools. Raises MaskError for another sum."""
    if any(not isinstance(count, int) or count < 0 for count in counts) or sum(counts) != length:
        raise MaskError(f"Run lengths do not add up to the {length} pixels of their mask: it is damaged.")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def parse_coco_run_lengths(text: str) -> list[int]:
    """Return the run lengths of COCO's compressed strings: five bits a character, the lowest first.

    From the fourth number on, each is the difference to the one before the last. Raises MaskError for a
    damaged string. Such a string makes pycocotools crash or return uninitialised memory.
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


def decode_base64(text: str, error: type[ImageError | MaskError]) -> bytes:
    """Return the bytes of an image that is embedded as text. Raises `error` if it is damaged."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise error(f"An embedded image is no base64 ({problem}); the file is damaged.") from problem


def pycocotools_mask() -> Any:
    """Return pycocotools.mask. Raises KshotError if it is not installed."""
    return import_extra("pycocotools.mask", "COCO's outlines need pycocotools", "formats")
