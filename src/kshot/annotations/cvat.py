"""CVAT for images 1.1: the XML that CVAT exports for tasks of photographs."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from kshot.annotations.labelled_images import Annotations, Photograph, Pictures, Shape, gather
from kshot.annotations.rasterize import Mask, Point, Size, box, ellipse, fill, rotated, unroll
from kshot.errors import DataError, MaskError, reason_of

WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton")


def read_cvat(content: bytes, path: Path, pictures: Pictures) -> Annotations:
    """Read a CVAT document. Tags, which belong to whole photographs, are passed over.

    Raises DataError for a document that is not as it must be, or declares entities: CVAT's don't, and
    they can fill all memory.
    """
    root = _parse(content, path)
    if root.tag != "annotations" or root.find("track") is not None:
        raise DataError(f"{path} is no 'CVAT for images 1.1' file. Export the task in this very format.")
    photographs = []
    for image in root.iterfind("image"):
        name = image.get("name", "")
        size = _whole(image, "height", path), _whole(image, "width", path)
        shapes = [
            Shape(found.get("label", ""), partial(_draw, found))
            for found in image
            if found.tag in DRAW or found.tag in WITHOUT_AREA
        ]
        photographs.append(Photograph(name, partial(pictures.find, name), size, tuple(shapes)))
    order = [label.findtext("name", "") for label in root.iterfind("meta//labels/label")]
    return gather(photographs, order, path)


def _parse(content: bytes, path: Path) -> ElementTree.Element:
    try:
        text = content.decode()
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise DataError(f"{path} declares a document type or entities, which CVAT's files never do.")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path} is no XML file ({reason_of(error)}).") from error


def _whole(image: ElementTree.Element, name: str, path: Path) -> int:
    text = image.get(name, "")
    if not text.isdecimal() or not 0 < len(text) < 7 or int(text) == 0:
        raise DataError(f"{path} has a photograph whose {name} is {text[:20]!r}; export it again.")
    return int(text)


def _draw(found: ElementTree.Element, size: Size) -> Mask:
    if found.tag in WITHOUT_AREA:
        raise MaskError(
            f"It has a {found.tag}, which covers no area. Draw a polygon, rectangle, ellipse or mask, or "
            "leave its class out (--classes)."
        )
    return DRAW[found.tag](found, size)


def _draw_polygon(found: ElementTree.Element, size: Size) -> Mask:
    pairs = [pair.split(",") for pair in found.get("points", "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise MaskError(f"A polygon has the points {found.get('points', '')[:40]!r}; they must be x,y;x,y;…")
    return fill([[(_number(x), _number(y)) for x, y in pairs]], size)


def _draw_box(found: ElementTree.Element, size: Size) -> Mask:
    left, top, right, bottom = _numbers(found, "xtl", "ytl", "xbr", "ybr")
    centre = (left + right) / 2, (top + bottom) / 2
    return fill([_turned(found, box(left, top, right, bottom), centre)], size)


def _draw_ellipse(found: ElementTree.Element, size: Size) -> Mask:
    x, y, radius_x, radius_y = _numbers(found, "cx", "cy", "rx", "ry")
    return fill([_turned(found, ellipse(x, y, radius_x, radius_y), (x, y))], size)


def _draw_mask(found: ElementTree.Element, size: Size) -> Mask:
    """Put a small mask of run lengths, row by row, at its place; CVAT never lets it leave the picture."""
    left, top, width, height = (int(value) for value in _numbers(found, "left", "top", "width", "height"))
    if not (0 <= left < left + width <= size[1] and 0 <= top < top + height <= size[0]):
        raise MaskError(f"A mask of {width} x {height} pixels at ({left}, {top}) leaves its picture.")
    counts = [int(_number(count)) for count in found.get("rle", "").split(",")]
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = unroll(counts, height * width).reshape(height, width)
    return mask


def _turned(found: ElementTree.Element, points: list[Point], around: Point) -> list[Point]:
    return rotated(points, _number(found.get("rotation", "0")), around)


def _numbers(found: ElementTree.Element, *names: str) -> list[float]:
    return [_number(found.get(name, "")) for name in names]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MaskError(f"A shape has {text[:40]!r} where a number must be; the file is damaged.")
    return value


DRAW: dict[str, Callable[[ElementTree.Element, Size], Mask]] = {
    "polygon": _draw_polygon,
    "box": _draw_box,
    "ellipse": _draw_ellipse,
    "mask": _draw_mask,
}
