"""Label Studio's JSON export: polygons, rectangles and ellipses in percent, and brush strokes."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pydantic import BaseModel, FiniteFloat, PositiveInt, ValidationError

from kshot.annotations.brush import unpack
from kshot.annotations.labelled_images import Annotations, Photograph, Pictures, Shape, gather
from kshot.annotations.rasterize import Mask, Point, Size, box, ellipse, fill, rotated
from kshot.errors import DataError, MaskError, fault_of
from kshot.io.images import IMAGE_SUFFIXES

UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""What Label Studio makes of an uploaded file's name."""


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
    """The fields of every kind of region; each kind has some."""

    points: list[tuple[FiniteFloat, FiniteFloat]] = []
    x: FiniteFloat = 0
    y: FiniteFloat = 0
    width: FiniteFloat = 0
    height: FiniteFloat = 0
    radiusX: FiniteFloat = 0  # noqa: N815  Label Studio's names, not ours
    radiusY: FiniteFloat = 0  # noqa: N815
    rotation: FiniteFloat = 0
    rle: list[int] = []


def read_label_studio(content: list[Any], path: Path, pictures: Pictures) -> Annotations:
    """Read an export. Of a task's annotations the one that was updated last counts; cancelled ones never do.

    Predictions are passed over, and so is what is no region: choices, ratings, texts.
    Raises DataError for a document that is not as it must be.
    """
    photographs = []
    for number, given in enumerate(content, 1):
        try:
            task = _Task.model_validate(given)
        except ValidationError as error:
            raise DataError(
                f"{path} is no JSON export of Label Studio (task {number}: {fault_of(error)}). Export "
                "'JSON', not 'JSON-MIN'."
            ) from error
        done = [one for one in task.annotations if not one.was_cancelled]
        if done:
            last = sorted(done, key=lambda one: one.updated_at)[-1]
            photographs.append(_photograph(task.data, last, f"{path}, task {number}", pictures))
    return gather(photographs, [], path)


def _photograph(
    data: Mapping[str, Any], annotation: _Annotation, where: str, pictures: Pictures
) -> Photograph:
    regions = [region for region in annotation.result if region.type.endswith("labels")]
    sizes = {(one.original_height, one.original_width) for one in regions} - {(None, None)}
    if len(sizes) > 1:
        raise DataError(f"{where} has regions of pictures of different sizes: {sorted(sizes, key=str)}.")
    height, width = next(iter(sizes), (None, None))
    names = _file_names(_picture_of(data, where))
    return Photograph(
        names[0],
        partial(pictures.find, *names),
        None if height is None or width is None else (height, width),
        tuple(Shape(name, partial(_draw, one)) for one in regions for name in _labels(one, where)),
    )


def _picture_of(data: Mapping[str, Any], where: str) -> str:
    """Find the one value of a task's data that names a picture."""
    texts = [value for value in data.values() if isinstance(value, str)]
    found = [text for text in texts if PurePosixPath(_file_names(text)[0]).suffix.lower() in IMAGE_SUFFIXES]
    if len(found) != 1:
        raise DataError(f"{where} names {len(found)} pictures in its data; it must be one.")
    return found[0]


def _file_names(address: str) -> list[str]:
    """Give what a photograph may be called on disk, by its address in Label Studio.

    That is the address's last part, and the name that an uploaded file had before; before both comes the path
    in /data/local-files/?d=PATH.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return [address]
    local = parse_qs(parts.query).get("d", [])
    name = (local[0] if local else unquote(parts.path)).rpartition("/")[2]
    before = UPLOADED.fullmatch(name)
    return [*local[:1], name, *([before[1]] if before else [])]


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
        raise MaskError(f"It was turned in Label Studio, by {region.image_rotation:g} degrees. Turn it back.")
    if region.type == "brushlabels":
        return _draw_strokes(outline.rle, size)
    return fill([_polygon(region.type, outline, size)], size)


def _polygon(kind: str, outline: _Outline, size: Size) -> list[Point]:
    """Give a region's corners in pixels. Turning needs pixels: percents are not square."""
    per_height, per_width = (side / 100 for side in size)
    x, y = outline.x * per_width, outline.y * per_height
    if kind == "polygonlabels":
        return [(across * per_width, down * per_height) for across, down in outline.points]
    if kind == "rectanglelabels":
        corners = box(x, y, x + outline.width * per_width, y + outline.height * per_height)
    elif kind == "ellipselabels":
        corners = ellipse(x, y, outline.radiusX * per_width, outline.radiusY * per_height)
    else:
        raise MaskError(
            f"It has a region of type {kind!r}, which covers no area. Draw a polygon, rectangle, ellipse or "
            "brush strokes, or leave its class out (--classes)."
        )
    return rotated(corners, outline.rotation, (x, y))


def _draw_strokes(packed: list[int], size: Size) -> Mask:
    """Take the opacity of the strokes, which Label Studio keeps as an RGBA picture."""
    height, width = size
    values = unpack(packed, height * width * 4)
    return np.ascontiguousarray(values.reshape(height, width, 4)[..., 3] > 0)
