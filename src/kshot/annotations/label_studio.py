"""Read Label Studio's JSON export: polygons, rectangles and ellipses in percent, and brush strokes."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pydantic import BaseModel, FiniteFloat, PositiveInt, ValidationError

from kshot.annotations.annotated_images import AnnotatedImage, Annotations, ImageLocator, Shape, collect
from kshot.annotations.brush import decode_brush
from kshot.annotations.rasterize import (
    Mask,
    Point,
    Size,
    box_polygon,
    ellipse_polygon,
    fill_polygons,
    rotate,
)
from kshot.errors import DataError, MaskError, fault_of
from kshot.io.images import IMAGE_SUFFIXES

UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""Name of an uploaded file: Label Studio puts a random prefix before the original name."""


class _Region(BaseModel):
    type: str = ""
    value: dict[str, Any] = {}
    original_width: PositiveInt | None = None
    original_height: PositiveInt | None = None
    image_rotation: FiniteFloat = 0


class _Annotation(BaseModel):
    result: list[_Region] = []
    was_cancelled: bool = False
    updated_at: str = ""


class _Task(BaseModel):
    data: dict[str, Any]
    annotations: list[_Annotation]


class _Outline(BaseModel):
    """The fields of all types of region; each type has some of them."""

    points: list[tuple[FiniteFloat, FiniteFloat]] = []
    x: FiniteFloat = 0
    y: FiniteFloat = 0
    width: FiniteFloat = 0
    height: FiniteFloat = 0
    radiusX: FiniteFloat = 0  # noqa: N815  Label Studio's names, not ours
    radiusY: FiniteFloat = 0  # noqa: N815
    rotation: FiniteFloat = 0
    rle: list[int] = []


def read_label_studio(content: list[Any], path: Path, locator: ImageLocator) -> Annotations:
    """Read an export. Of a task's annotations the last updated one that is not cancelled counts.

    Predictions are ignored, and so are results that are not regions: choices, ratings, texts.
    Raises DataError for an invalid document.
    """
    images = []
    for number, given in enumerate(content, 1):
        try:
            task = _Task.model_validate(given)
        except ValidationError as error:
            raise DataError(
                f"{path} is no JSON export of Label Studio (task {number}: {fault_of(error)}). Export "
                "'JSON', not 'JSON-MIN'."
            ) from error
        done = [annotation for annotation in task.annotations if not annotation.was_cancelled]
        if done:
            last = sorted(done, key=lambda annotation: annotation.updated_at)[-1]
            images.append(_annotated_image(task.data, last, f"{path}, task {number}", locator))
    return collect(images, [], path)


def _annotated_image(
    data: Mapping[str, Any], annotation: _Annotation, where: str, locator: ImageLocator
) -> AnnotatedImage:
    regions = [region for region in annotation.result if region.type.endswith("labels")]
    sizes = {(region.original_height, region.original_width) for region in regions} - {(None, None)}
    if len(sizes) > 1:
        raise DataError(f"{where} has regions of images of different sizes: {sorted(sizes, key=str)}.")
    height, width = next(iter(sizes), (None, None))
    names = _file_names(_image_in(data, where))
    return AnnotatedImage(
        names[0],
        partial(locator.find, *names),
        None if height is None or width is None else (height, width),
        tuple(Shape(name, partial(_draw, region)) for region in regions for name in _labels(region, where)),
    )


def _image_in(data: Mapping[str, Any], where: str) -> str:
    """Return the one value of a task's data that names an image."""
    texts = [value for value in data.values() if isinstance(value, str)]
    found = [text for text in texts if PurePosixPath(_file_names(text)[0]).suffix.lower() in IMAGE_SUFFIXES]
    if len(found) != 1:
        raise DataError(f"{where} names {len(found)} images in its data; it must be one.")
    return found[0]


def _file_names(address: str) -> list[str]:
    """Return the names that an image may have on disk, from its URL in Label Studio.

    They are the path in /data/local-files/?d=PATH if there is one, the last part of the URL, and the
    original name of an uploaded file.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return [address]
    local = parse_qs(parts.query).get("d", [])
    name = (local[0] if local else unquote(parts.path)).rpartition("/")[2]
    original = UPLOADED.fullmatch(name)
    return [*local[:1], name, *([original[1]] if original else [])]


def _labels(region: _Region, where: str) -> list[str]:
    labels = region.value.get(region.type, [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{where} has {region.type} that are no list of names.")
    return labels


def _draw(region: _Region, size: Size) -> Mask:
    try:
        outline = _Outline.model_validate(region.value)
    except ValidationError as error:
        raise MaskError(f"A region of type {region.type!r} is damaged: {fault_of(error)}.") from error
    if region.image_rotation:
        raise MaskError(
            f"It was rotated in Label Studio, by {region.image_rotation:g} degrees. Rotate it back."
        )
    if region.type == "brushlabels":
        return _draw_strokes(outline.rle, size)
    return fill_polygons([_polygon(region.type, outline, size)], size)


def _polygon(region_type: str, outline: _Outline, size: Size) -> list[Point]:
    """Return a region's corners in pixels. They are rotated in pixels, because percents are not square."""
    per_height, per_width = (side / 100 for side in size)
    x, y = outline.x * per_width, outline.y * per_height
    if region_type == "polygonlabels":
        return [(across * per_width, down * per_height) for across, down in outline.points]
    if region_type == "rectanglelabels":
        corners = box_polygon(x, y, x + outline.width * per_width, y + outline.height * per_height)
    elif region_type == "ellipselabels":
        corners = ellipse_polygon(x, y, outline.radiusX * per_width, outline.radiusY * per_height)
    else:
        raise MaskError(
            f"It has a region of type {region_type!r}, which covers no area. Draw a polygon, rectangle, "
            "ellipse or brush strokes, or exclude its class (--classes)."
        )
    return rotate(corners, outline.rotation, (x, y))


def _draw_strokes(packed: list[int], size: Size) -> Mask:
    """Return where the strokes, an RGBA image, are not fully transparent."""
    height, width = size
    values = decode_brush(packed, height * width * 4)
    return np.ascontiguousarray(values.reshape(height, width, 4)[..., 3] > 0)
