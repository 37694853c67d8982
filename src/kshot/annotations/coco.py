"""Read COCO instances: polygons and run lengths, as COCO, Roboflow, CVAT and others write them."""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, PositiveInt

from kshot.annotations.annotated_images import AnnotatedImage, Annotations, ImageLocator, Shape, collect
from kshot.annotations.rasterize import (
    Mask,
    Point,
    Size,
    decode_run_lengths,
    fill_polygons,
    parse_coco_run_lengths,
)
from kshot.errors import DataError, MaskError
from kshot.io.files import validate


class _Image(BaseModel):
    id: int | str
    file_name: str
    height: PositiveInt
    width: PositiveInt


class _Category(BaseModel):
    id: int
    name: str


class _Object(BaseModel):
    image_id: int | str
    category_id: int
    segmentation: Any = None
    iscrowd: bool = False


class _Instances(BaseModel):
    images: list[_Image]
    annotations: list[_Object]
    categories: list[_Category]


def read_coco(content: dict[str, Any], path: Path, locator: ImageLocator) -> Annotations:
    """Read an instances document. Crowds (`iscrowd`) are regions to ignore, not foreground.

    Raises DataError for an invalid document.
    """
    instances = validate(_Instances, content, f"{path} is no COCO instances file")
    names = {category.id: category.name for category in instances.categories}
    shapes: dict[int | str, list[Shape]] = defaultdict(list)
    for annotation in instances.annotations:
        if annotation.category_id not in names:
            raise DataError(f"{path} annotates category {annotation.category_id}, which has no name in it.")
        if not annotation.iscrowd:
            draw = partial(draw_segmentation, annotation.segmentation)
            shapes[annotation.image_id].append(Shape(names[annotation.category_id], draw))
    images = [
        AnnotatedImage(
            image.file_name,
            partial(locator.find, image.file_name),
            (image.height, image.width),
            tuple(shapes[image.id]),
        )
        for image in instances.images
    ]
    return collect(images, [names[number] for number in sorted(names)], path)


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


def _points(polygon: Any) -> list[Point]:
    if not isinstance(polygon, list) or len(polygon) % 2 or not all(type(v) in (int, float) for v in polygon):
        raise MaskError("A polygon is no list of numbers x, y, x, y, …; the file is damaged.")
    return list(zip(polygon[::2], polygon[1::2], strict=True))
