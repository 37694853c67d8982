"""Read Label Studio's JSON export: polygons, rectangles, ellipses, brush strokes and bitmasks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pydantic import BaseModel, FiniteFloat, PositiveInt, ValidationError

from kshot.annotations.annotated_images import AnnotatedImage, Annotations, Shape, collect
from kshot.annotations.brush import decode_brush
from kshot.annotations.image_locator import ImageLocator
from kshot.annotations.rasterize import (
    Mask,
    Point,
    Size,
    box_polygon,
    decode_base64,
    ellipse_polygon,
    fill_polygons,
    outline_fault,
    rotate,
)
from kshot.annotations.summary import Omissions
from kshot.errors import DataError, MaskError, fault_of
from kshot.io.image_files import open_checked
from kshot.io.images import IMAGE_SUFFIXES

SHAPES = ("polygon", "rectangle", "ellipse", "brush", "bitmask")
"""Types of regions that cover an area. With a label in the same result their type is "polygonlabels" etc."""


class _Region(BaseModel):
    id: str | int | None = None
    type: str = ""
    value: dict[str, Any] = {}
    original_width: PositiveInt | None = None
    original_height: PositiveInt | None = None
    image_rotation: FiniteFloat = 0

    @property
    def shape(self) -> str:
        """Its type without "labels"."""
        return self.type.removesuffix("labels")

    @property
    def outline(self) -> tuple[Any, ...]:
        """Its value without the labels, and the size of its image."""
        value = {name: value for name, value in self.value.items() if not name.endswith("labels")}
        return value, self.original_width, self.original_height


class _Annotation(BaseModel):
    result: list[_Region] = []
    was_cancelled: bool = False
    updated_at: str = ""


class _Task(BaseModel):
    data: dict[str, Any]
    annotations: list[_Annotation]
    predictions: list[Any] | None = None


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
    imageDataURL: str = ""  # noqa: N815


def read_label_studio(content: list[Any], path: Path, locator: ImageLocator) -> Annotations:
    """Read an export. Of a task's annotations the last updated one that is not cancelled counts.

    Other annotations, predictions and results that are not regions of an area (choices, ratings, texts,
    keypoints) are left out. Raises DataError for an invalid document.
    """
    omissions = Omissions()
    images = []
    for number, given in enumerate(content, 1):
        where = f"task {number}"
        try:
            task = _Task.model_validate(given)
        except ValidationError as error:
            raise DataError(
                f"{path} is no JSON export of Label Studio ({where}: {fault_of(error)}). Export "
                "'JSON', not 'JSON-MIN'."
            ) from error
        last = _last_annotation(task, where, omissions)
        images.append(_annotated_image(task.data, last, path, where, locator, omissions))
    return collect(images, [], path, omissions)


def _last_annotation(task: _Task, where: str, omissions: Omissions) -> _Annotation:
    """Return the annotation that counts, or an empty one."""
    omissions.add_all("prediction", "of a model", [where] * len(task.predictions or []))
    done = [annotation for annotation in task.annotations if not annotation.was_cancelled]
    omissions.add_all("annotation", "that was cancelled", [where] * (len(task.annotations) - len(done)))
    omissions.add_all("annotation", "older than another one of its task", [where] * (len(done) - 1))
    return max(done, key=lambda annotation: annotation.updated_at, default=_Annotation())


def _annotated_image(
    data: Mapping[str, Any],
    annotation: _Annotation,
    path: Path,
    where: str,
    locator: ImageLocator,
    omissions: Omissions,
) -> AnnotatedImage:
    regions = _regions(annotation.result, f"{path}, {where}", omissions)
    sizes = {(region.original_height, region.original_width) for region, _ in regions} - {(None, None)}
    if len(sizes) > 1:
        raise DataError(
            f"{path}, {where} has regions of images of different sizes: {sorted(sizes, key=str)}."
        )
    height, width = next(iter(sizes), (None, None))
    size = None if height is None or width is None else (height, width)
    names = _file_names(_image_in(data, f"{path}, {where}"))
    locator.add_listed(names[:1])
    shapes = []
    for region, labels in regions:
        if fault := _fault(region, size):
            omissions.add("outline", fault, f"{where}, {labels[0]}")
        else:
            shapes += [Shape(name, partial(_draw, region)) for name in labels]
    return AnnotatedImage(names[0], partial(locator.find, *names), size, tuple(shapes))


def _regions(results: Sequence[_Region], where: str, omissions: Omissions) -> list[tuple[_Region, list[str]]]:
    """Return the regions that cover an area, each with its labels.

    The label is in the region itself, or in another result of the same id: one of type "labels" (from a
    Labels tag), or the same outline with a second set of labels.
    """
    regions = [result for result in results if result.shape in SHAPES]
    ids = {region.id for region in regions} - {None}
    separate: dict[object, list[str]] = defaultdict(list)
    for result in results:
        if result.type == "labels" and result.id in ids:
            separate[result.id] += _labels(result, where)
        elif result.shape not in SHAPES:
            omissions.add("result", f"of type '{result.type[:20]}'", where)
    found: dict[object, list[tuple[_Region, list[str]]]] = defaultdict(list)
    for number, region in enumerate(regions):
        of_id = found[number if region.id is None else (region.id,)]
        labels = _labels(region, where)
        same = next((names for other, names in of_id if other.outline == region.outline), None)
        if same is None:
            of_id.append((region, [*labels, *separate[region.id]]))
        else:
            same += labels
    together = [(region, [*dict.fromkeys(names)]) for of_id in found.values() for region, names in of_id]
    omissions.add_all("region", "without a label", (where for _, names in together if not names))
    return [(region, names) for region, names in together if names]


def _image_in(data: Mapping[str, Any], where: str) -> str:
    """Return the one value of a task's data that names an image."""
    texts = [value for value in data.values() if isinstance(value, str)]
    found = [text for text in texts if PurePosixPath(_file_names(text)[0]).suffix.lower() in IMAGE_SUFFIXES]
    if len(found) != 1:
        raise DataError(f"{where} names {len(found)} images in its data; it must be one.")
    return found[0]


def _file_names(address: str) -> list[str]:
    """Return the names that an image may have on disk, from its URL in Label Studio.

    They are the path in /data/local-files/?d=PATH if there is one, and the last part of the URL.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return [address]
    local = parse_qs(parts.query).get("d", [])
    return [*local[:1], (local[0] if local else unquote(parts.path)).rpartition("/")[2]]


def _labels(result: _Region, where: str) -> list[str]:
    labels = result.value.get(result.type, []) if result.type.endswith("labels") else []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(f"{where} has {result.type} that are no list of names.")
    return labels


def _fault(region: _Region, size: Size | None) -> str:
    """Return why a polygon can show no pixel of its image, or ""; what is damaged shows when it is drawn."""
    if region.shape != "polygon":
        return ""
    try:
        points = _Outline.model_validate(region.value).points
    except ValidationError:
        return ""
    return outline_fault(points, None) or (size and outline_fault(_in_pixels(points, size), size)) or ""


def _draw(region: _Region, size: Size) -> Mask:
    try:
        outline = _Outline.model_validate(region.value)
    except ValidationError as error:
        raise MaskError(f"A region of type {region.type!r} is damaged: {fault_of(error)}.") from error
    if region.image_rotation:
        raise MaskError(
            f"It was rotated in Label Studio, by {region.image_rotation:g} degrees. Rotate it back."
        )
    if region.shape == "brush":
        return _draw_strokes(outline.rle, size)
    if region.shape == "bitmask":
        return _draw_bitmask(outline.imageDataURL, size)
    return fill_polygons([_polygon(region.shape, outline, size)], size)


def _polygon(shape: str, outline: _Outline, size: Size) -> list[Point]:
    """Return a region's corners in pixels. They are rotated in pixels, because percents are not square."""
    if shape == "polygon":
        return _in_pixels(outline.points, size)
    ((x, y), (width, height), (radius_x, radius_y)) = _in_pixels(
        [(outline.x, outline.y), (outline.width, outline.height), (outline.radiusX, outline.radiusY)], size
    )
    if shape == "rectangle":
        corners = box_polygon(x, y, x + width, y + height)
    else:
        corners = ellipse_polygon(x, y, radius_x, radius_y)
    return rotate(corners, outline.rotation, (x, y))


def _in_pixels(points: Sequence[Point], size: Size) -> list[Point]:
    height, width = size
    return [(across * width / 100, down * height / 100) for across, down in points]


def _draw_strokes(packed: list[int], size: Size) -> Mask:
    """Return where the strokes, an RGBA image, are not fully transparent."""
    height, width = size
    values = decode_brush(packed, height * width * 4)
    return np.ascontiguousarray(values.reshape(height, width, 4)[..., 3] > 0)


def _draw_bitmask(address: str, size: Size) -> Mask:
    """Return where a bitmask, a PNG in a data URL, is drawn.

    Label Studio draws in black on a transparent background; without transparency, what is not black counts.
    """
    content = decode_base64(address.rpartition(",")[2], MaskError)
    with open_checked(BytesIO(content), MaskError, "A bitmask") as image:
        values = np.asarray(image.convert("RGBA"))
    if values.shape[:2] != size:
        raise MaskError(
            f"A bitmask is {values.shape[1]} x {values.shape[0]} pixels, but its image {size[1]} x {size[0]}."
        )
    alpha = values[..., 3] > 0
    return alpha if not alpha.all() else np.any(values[..., :3] > 0, axis=2)
