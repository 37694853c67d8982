"""Read LabelMe files, one per image, rasterized with PIL as LabelMe's `shape_to_mask` does."""

import math
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, FiniteFloat, PositiveInt

from kshot.annotations.annotated_images import AnnotatedImage, Shape
from kshot.annotations.image_locator import ImageLocator
from kshot.annotations.rasterize import Mask, Point, Size, check_points, decode_base64, outline_fault
from kshot.annotations.summary import Omissions
from kshot.errors import ImageError, MaskError
from kshot.io.files import read_json, validate
from kshot.io.image_files import open_checked
from kshot.io.images import ImageSource, read_image_bytes

POLYGONS = (None, "polygon", "oriented_rectangle", "rotation", "quadrilateral")
"""Types of shapes that are their points; the last two are written by forks of LabelMe."""

TWO_POINTS = ("rectangle", "circle", "mask")
"""Types of shapes of two points: opposite corners, or centre and edge."""


class _Shape(BaseModel):
    label: str
    points: list[tuple[FiniteFloat, FiniteFloat]] = []
    shape_type: str | None = None
    mask: str | None = None


class _File(BaseModel):
    imagePath: str  # noqa: N815  LabelMe's names, not ours
    imageData: str | None = None  # noqa: N815
    imageHeight: PositiveInt | None = None  # noqa: N815
    imageWidth: PositiveInt | None = None  # noqa: N815
    shapes: list[_Shape]


def read_labelme(
    content: dict[str, Any], path: Path, locator: ImageLocator, omissions: Omissions
) -> AnnotatedImage:
    """Read a LabelMe document. Its embedded image, if any, is used if the image file is not found.

    omissions: counts the shapes that can show no pixel. Raises DataError for an invalid document.
    """
    document = validate(_File, content, f"{path} is no LabelMe file")
    height, width = document.imageHeight, document.imageWidth
    size = None if height is None or width is None else (height, width)
    shapes = []
    for shape in document.shapes:
        if fault := _fault(shape, size):
            omissions.add("shape", fault, f"{path.name}: {shape.label}")
        else:
            shapes.append(Shape(shape.label, partial(_draw, shape)))
    locator.add_listed([document.imagePath])
    locate = partial(_locate, document.imagePath, path, locator)
    return AnnotatedImage(document.imagePath, locate, size, tuple(shapes))


def _fault(shape: _Shape, size: Size | None) -> str:
    """Return why a shape covers no area of its image, or ""."""
    if _is_polygon(shape):
        return outline_fault(shape.points, size)
    if shape.shape_type not in TWO_POINTS:
        return f"of type '{str(shape.shape_type)[:20]}'"
    return "" if len(shape.points) == 2 else f"of type '{shape.shape_type}' without its two points"


def _is_polygon(shape: _Shape) -> bool:
    """Return whether a shape's points are its outline; forks write rectangles with four corners."""
    return shape.shape_type in POLYGONS or (shape.shape_type == "rectangle" and len(shape.points) == 4)


def _locate(name: str, path: Path, locator: ImageLocator) -> ImageSource:
    try:
        return locator.find(name, name.replace("\\", "/").rpartition("/")[2])
    except ImageError:
        embedded = _File.model_validate(read_json(path)).imageData  # read again, not kept: it is large
        if embedded is None:
            raise
        return read_image_bytes(decode_base64(embedded, ImageError), f"{path}'s imageData")


def _draw(shape: _Shape, size: Size) -> Mask:
    if shape.shape_type == "mask":
        return _draw_mask(shape, size)
    canvas = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    if _is_polygon(shape):
        draw.polygon(check_points(shape.points, size), outline=1, fill=1)
    elif shape.shape_type == "rectangle":
        (x0, y0), (x1, y1) = _two_points(shape, size)
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=1, fill=1)
    else:
        (x, y), edge = _two_points(shape, size)
        radius = math.dist((x, y), edge)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    return np.array(canvas)


def _draw_mask(shape: _Shape, size: Size) -> Mask:
    """Place a small mask between its corner pixels. LabelMe's always lie inside the image."""
    left, top, right, bottom = (int(value) for point in _two_points(shape, size) for value in point)
    with open_checked(
        BytesIO(decode_base64(shape.mask or "", MaskError)), MaskError, "A shape's mask"
    ) as image:
        piece = np.asarray(image) != 0
    mask = np.zeros(size, dtype=bool)
    if left < 0 or top < 0 or mask[top : bottom + 1, left : right + 1].shape != piece.shape:
        raise MaskError(
            f"A mask of the shape {piece.shape} does not fit its corners ({left}, {top}) and ({right}, "
            f"{bottom})."
        )
    mask[top : bottom + 1, left : right + 1] = piece
    return mask


def _two_points(shape: _Shape, size: Size) -> tuple[Point, Point]:
    first, second = check_points(shape.points, size, fewest=2)
    return first, second
