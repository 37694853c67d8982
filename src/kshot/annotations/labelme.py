"""LabelMe's files: one for each photograph, rasterised with PIL, as LabelMe's own `shape_to_mask` does."""

import base64
import binascii
import math
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, FiniteFloat, PositiveInt

from kshot.annotations.json_files import parse, read_json
from kshot.annotations.labelled_images import Photograph, Pictures, Shape
from kshot.annotations.rasterize import Mask, Point, Size, checked
from kshot.errors import ImageError, MaskError
from kshot.io.image_files import opened
from kshot.io.images import ImageSource, read_embedded

POLYGONS = (None, "polygon", "oriented_rectangle")


class _Shape(BaseModel):
    label: str
    points: list[tuple[FiniteFloat, FiniteFloat]]
    shape_type: str | None = None
    mask: str | None = None


class _File(BaseModel):
    imagePath: str  # noqa: N815  LabelMe's names, not ours
    imageData: str | None = None  # noqa: N815
    imageHeight: PositiveInt | None = None  # noqa: N815
    imageWidth: PositiveInt | None = None  # noqa: N815
    shapes: list[_Shape]


def read_labelme(content: dict[str, Any], path: Path, pictures: Pictures) -> Photograph:
    """Read a LabelMe document. The picture inside it, if any, is used where the photograph is not found.

    Raises DataError for a document that is not as it must be.
    """
    document = parse(_File, content, f"{path} is no LabelMe file")
    height, width = document.imageHeight, document.imageWidth
    return Photograph(
        document.imagePath,
        partial(_find, document.imagePath, path, pictures),
        None if height is None or width is None else (height, width),
        tuple(Shape(shape.label, partial(_draw, shape)) for shape in document.shapes),
    )


def _find(name: str, path: Path, pictures: Pictures) -> ImageSource:
    try:
        return pictures.find(name, name.replace("\\", "/").rpartition("/")[2])
    except ImageError:
        embedded = _File.model_validate(read_json(path)).imageData  # not kept: it is large
        if embedded is None:
            raise
        return read_embedded(_decoded(embedded, ImageError), f"{path}'s imageData")


def _draw(shape: _Shape, size: Size) -> Mask:
    if shape.shape_type == "mask":
        return _draw_mask(shape, size)
    picture = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(picture)
    if shape.shape_type in POLYGONS:
        draw.polygon(checked(shape.points, size), outline=1, fill=1)
    elif shape.shape_type == "rectangle":
        (x0, y0), (x1, y1) = _two(shape, size)
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=1, fill=1)
    elif shape.shape_type == "circle":
        (x, y), edge = _two(shape, size)
        radius = math.dist((x, y), edge)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    else:
        raise MaskError(
            f"It has a shape of type {shape.shape_type!r}, which covers no area. Draw a polygon, rectangle, "
            "circle or mask, or leave its class out (--classes)."
        )
    return np.array(picture)


def _draw_mask(shape: _Shape, size: Size) -> Mask:
    """Put a small mask where its corners, both inside it, say; LabelMe never lets it leave the picture."""
    left, top, right, bottom = (int(value) for point in _two(shape, size) for value in point)
    with opened(BytesIO(_decoded(shape.mask or "", MaskError)), MaskError, "A shape's mask") as picture:
        piece = np.asarray(picture) != 0
    mask = np.zeros(size, dtype=bool)
    if left < 0 or top < 0 or mask[top : bottom + 1, left : right + 1].shape != piece.shape:
        raise MaskError(
            f"A mask of the shape {piece.shape} does not fit its corners ({left}, {top}) and ({right}, "
            f"{bottom})."
        )
    mask[top : bottom + 1, left : right + 1] = piece
    return mask


def _two(shape: _Shape, size: Size) -> tuple[Point, Point]:
    if len(shape.points) != 2:
        raise MaskError(f"A {shape.shape_type} has {len(shape.points)} points; it needs 2.")
    first, second = checked(shape.points, size, fewest=2)
    return first, second


def _decoded(text: str, error: type[ImageError | MaskError]) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise error(f"An embedded picture is no base64 ({problem}); the file is damaged.") from problem
