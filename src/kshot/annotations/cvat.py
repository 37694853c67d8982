"""Read CVAT for images 1.1: the XML that CVAT exports for image tasks."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from kshot.annotations.annotated_images import AnnotatedImage, Annotations, Shape, collect
from kshot.annotations.image_locator import ImageLocator
from kshot.annotations.rasterize import (
    Mask,
    Point,
    Size,
    box_polygon,
    decode_run_lengths,
    ellipse_polygon,
    fill_polygons,
    outline_fault,
    rotate,
)
from kshot.annotations.summary import Omissions
from kshot.errors import DataError, MaskError, reason_of


def read_cvat(content: bytes, path: Path, locator: ImageLocator) -> Annotations:
    """Read a CVAT document. Tags, which label whole images, and shapes without an area are left out.

    Raises DataError for an invalid document, or one that declares entities: CVAT's never do, and they could
    fill the memory.
    """
    root = _parse(content, path)
    if root.tag != "annotations" or root.find("track") is not None:
        raise DataError(f"{path} is no 'CVAT for images 1.1' file. Export the task in exactly this format.")
    omissions = Omissions()
    elements = root.findall("image")
    locator.add_listed(image.get("name", "") for image in elements)
    images = []
    for image in elements:
        name = image.get("name", "")
        size = _side(image, "height", path), _side(image, "width", path)
        shapes = [shape for element in image if (shape := _shape(element, size, name, omissions))]
        images.append(AnnotatedImage(name, partial(locator.find, name), size, tuple(shapes)))
    order = [label.findtext("name", "") for label in root.iterfind("meta//labels/label")]
    return collect(images, order, path, omissions)


def _shape(element: ElementTree.Element, size: Size, image_name: str, omissions: Omissions) -> Shape | None:
    """Return an element as a shape, or None if it can show no pixel, which is counted."""
    label = element.get("label", "")
    if element.tag not in DRAW:
        noun, why = (
            ("tag", "of a whole image")
            if element.tag == "tag"
            else ("shape", f"of type '{element.tag[:20]}'")
        )
        omissions.add(noun, why, f"{image_name}: {label}")
        return None
    if element.tag == "polygon":
        try:
            fault = outline_fault(_points(element), size)
        except MaskError:  # drawing it says what is wrong
            fault = ""
        if fault:
            omissions.add("outline", fault, f"{image_name}: {label}")
            return None
    return Shape(label, partial(DRAW[element.tag], element))


def _parse(content: bytes, path: Path) -> ElementTree.Element:
    try:
        text = content.decode()  # as text, because a declared encoding could hide the words below
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise DataError(f"{path} declares a document type or entities, which CVAT's files never do.")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path} is no XML file ({reason_of(error)}).") from error


def _side(image: ElementTree.Element, name: str, path: Path) -> int:
    text = image.get(name, "")
    if not text.isdecimal() or not 0 < len(text) < 7 or int(text) == 0:
        raise DataError(f"{path} has an image whose {name} is {text[:20]!r}; export it again.")
    return int(text)


def _points(element: ElementTree.Element) -> list[Point]:
    points = element.get("points", "").strip(" ;")
    pairs = [pair.split(",") for pair in points.split(";")] if points else []
    if any(len(pair) != 2 for pair in pairs):
        raise MaskError(f"A polygon has the points {points[:40]!r}; they must be x,y;x,y;…")
    return [(_number(x), _number(y)) for x, y in pairs]


def _draw_polygon(element: ElementTree.Element, size: Size) -> Mask:
    return fill_polygons([_points(element)], size)


def _draw_box(element: ElementTree.Element, size: Size) -> Mask:
    left, top, right, bottom = _numbers(element, "xtl", "ytl", "xbr", "ybr")
    centre = (left + right) / 2, (top + bottom) / 2
    return fill_polygons([_rotated(element, box_polygon(left, top, right, bottom), centre)], size)


def _draw_ellipse(element: ElementTree.Element, size: Size) -> Mask:
    x, y, radius_x, radius_y = _numbers(element, "cx", "cy", "rx", "ry")
    return fill_polygons([_rotated(element, ellipse_polygon(x, y, radius_x, radius_y), (x, y))], size)


def _draw_mask(element: ElementTree.Element, size: Size) -> Mask:
    """Place a small mask, stored as run lengths row by row. CVAT's always lie inside the image."""
    left, top, width, height = (int(value) for value in _numbers(element, "left", "top", "width", "height"))
    if not (0 <= left < left + width <= size[1] and 0 <= top < top + height <= size[0]):
        raise MaskError(f"A mask of {width} x {height} pixels at ({left}, {top}) leaves its image.")
    counts = [int(_number(count)) for count in element.get("rle", "").split(",")]
    mask = np.zeros(size, dtype=bool)
    piece = decode_run_lengths(counts, height * width).reshape(height, width)
    mask[top : top + height, left : left + width] = piece
    return mask


def _rotated(element: ElementTree.Element, points: list[Point], centre: Point) -> list[Point]:
    return rotate(points, _number(element.get("rotation", "0")), centre)


def _numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [_number(element.get(name, "")) for name in names]


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
