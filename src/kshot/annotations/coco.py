"""Read COCO instances: polygons and run lengths, as COCO, Roboflow, CVAT and others write them."""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, NonNegativeInt

from kshot.annotations.annotated_images import AnnotatedImage, Annotations, Shape, collect
from kshot.annotations.image_locator import ImageLocator
from kshot.annotations.rasterize import (
    Mask,
    Point,
    Size,
    decode_run_lengths,
    fill_polygons,
    outline_fault,
    parse_coco_run_lengths,
)
from kshot.annotations.summary import Omissions
from kshot.errors import DataError, MaskError
from kshot.io.files import validate

Id = int | str


class _Image(BaseModel):
    id: Id
    file_name: str
    height: NonNegativeInt | None = None
    width: NonNegativeInt | None = None

    @property
    def size(self) -> Size | None:
        """The (height, width), if the file has it; some tools write 0 instead."""
        return (self.height, self.width) if self.height and self.width else None


class _Category(BaseModel):
    id: Id
    name: str


class _Object(BaseModel):
    id: Any = None
    image_id: Id | None = None
    category_id: Id | None = None
    segmentation: Any = None
    iscrowd: bool | None = False


class _Instances(BaseModel):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category]


def read_coco(content: dict[str, Any], path: Path, locator: ImageLocator) -> Annotations:
    """Read an instances document. Ids match as numbers, also if some are written as text.

    Crowds (`iscrowd`) are regions to ignore, not foreground, unless all annotations are crowds: brush strokes
    are often exported so. Raises DataError for an invalid document, or for two images or classes of one id.
    """
    instances = validate(_Instances, content, f"{path} is no COCO instances file")
    images = {_key(image.id): image for image in instances.images}
    names = {_key(category.id): category.name for category in instances.categories}
    _check_unique("images", ((image.id, image.file_name) for image in instances.images), path)
    _check_unique("categories", ((one.id, one.name) for one in instances.categories), path)
    omissions = Omissions()
    are_all_crowds = all(annotation.iscrowd for annotation in instances.annotations)
    shapes: dict[str, list[Shape]] = defaultdict(list)
    for annotation in instances.annotations:
        image, class_name = images.get(_key(annotation.image_id)), names.get(_key(annotation.category_id))
        which = f"annotation {annotation.id}"
        if image is None:
            omissions.add("annotation", "without an image", f"{which} of image {annotation.image_id}")
        elif class_name is None:
            omissions.add("annotation", "without a class", f"{which} of category {annotation.category_id}")
        elif annotation.iscrowd and not are_all_crowds:
            omissions.add("crowd", "(iscrowd)", which)
        else:
            outline = _sound_outline(annotation.segmentation, image.size, which, omissions)
            if outline is not None:
                shapes[_key(image.id)].append(Shape(class_name, partial(draw_segmentation, outline)))
    locator.add_listed(image.file_name for image in images.values())
    annotated = [
        AnnotatedImage(
            image.file_name, partial(locator.find, image.file_name), image.size, tuple(shapes[key])
        )
        for key, image in images.items()
    ]
    note = "All annotations are crowds (iscrowd 1): they are read as objects."
    notes = [note] if are_all_crowds and instances.annotations else []
    return collect(annotated, [names[key] for key in sorted(names, key=_by_number)], path, omissions, notes)


def draw_segmentation(segmentation: Any, size: Size) -> Mask:
    """Rasterize a COCO segmentation: polygons, or run lengths as numbers or as a compressed string.

    Raises MaskError for anything else, or for run lengths of another size.
    """
    if isinstance(segmentation, list) and segmentation:
        return fill_polygons([_points(polygon) for polygon in segmentation], size)
    if not isinstance(segmentation, dict):
        raise MaskError("It has no outline, perhaps only a box. Export polygons or masks.")
    if segmentation.get("size") != list(size):
        raise MaskError(f"A mask's size is {segmentation.get('size')}, but its image's {list(size)}.")
    counts = segmentation.get("counts")
    if isinstance(counts, str | bytes):
        counts = parse_coco_run_lengths(counts if isinstance(counts, str) else counts.decode("latin-1"))
    if not isinstance(counts, list):
        raise MaskError("Run lengths are neither a list nor a string; the file is damaged.")
    height, width = size
    return np.ascontiguousarray(decode_run_lengths(counts, height * width).reshape(width, height).T)


def _key(given: Id | None) -> str:
    """Return an id as it is compared: 1, "1" and "001" are one."""
    text = str(given).strip()
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) < MAX_DIGITS else text


MAX_DIGITS = 1000
"""Digits of an id that is compared as a number; Python refuses some thousands."""


def _by_number(key: str) -> tuple[bool, int, str]:
    return not key.isdecimal(), len(key), key


def _check_unique(what: str, pairs: Iterable[tuple[Id, str]], path: Path) -> None:
    """Raise DataError if an id has two names."""
    found: dict[str, str] = {}
    for given, name in pairs:
        other = found.setdefault(_key(given), name)
        if other != name:
            raise DataError(
                f"{path} has two {what} with the id {given}: {other!r} and {name!r}. Export it again."
            )


def _sound_outline(segmentation: Any, size: Size | None, which: str, omissions: Omissions) -> Any:
    """Return a segmentation without polygons that show nothing; None if nothing is left.

    Damaged polygons and run lengths are kept: drawing them says what is wrong.
    """
    if segmentation in (None, [], {}, "", [[]]):
        omissions.add("annotation", "without an outline", which)
        return None
    if not isinstance(segmentation, list):
        return segmentation
    kept = []
    for polygon in _polygons(segmentation):
        try:
            fault = outline_fault(_points(polygon), size)
        except MaskError:
            fault = ""
        if fault:
            omissions.add("outline", fault, which)
        else:
            kept.append(polygon)
    return kept or None


def _polygons(outlines: list[Any]) -> list[Any]:
    """Return COCO's list of lists of numbers, also of one flat list or one list of points."""
    if _are_numbers(outlines):
        return [outlines]
    if all(isinstance(point, list) and len(point) == 2 and _are_numbers(point) for point in outlines):
        return [[value for point in outlines for value in point]]
    return outlines


def _are_numbers(values: Any) -> bool:
    return all(type(value) in (int, float) for value in values)


def _points(polygon: Any) -> list[Point]:
    if not isinstance(polygon, list) or len(polygon) % 2 or not _are_numbers(polygon):
        raise MaskError("A polygon is no list of numbers x, y, x, y, …; the file is damaged.")
    return list(zip(polygon[::2], polygon[1::2], strict=True))
