"""COCO's instances: polygons and run lengths; also what Roboflow, CVAT and others export under that name."""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, PositiveInt

from kshot.annotations.json_files import parse
from kshot.annotations.labelled_images import Annotations, Photograph, Pictures, Shape, gather
from kshot.annotations.rasterize import Mask, Point, Size, coco_run_lengths, fill, unroll
from kshot.errors import DataError, MaskError


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


def read_coco(content: dict[str, Any], path: Path, pictures: Pictures) -> Annotations:
    """Read an instances document. Crowds (`iscrowd`) are regions to ignore, and no foreground.

    Raises DataError for a document that is not as it must be.
    """
    instances = parse(_Instances, content, f"{path} is no COCO instances file")
    names = {category.id: category.name for category in instances.categories}
    shapes: dict[int | str, list[Shape]] = defaultdict(list)
    for found in instances.annotations:
        if found.category_id not in names:
            raise DataError(f"{path} annotates category {found.category_id}, which has no name in it.")
        if not found.iscrowd:
            draw = partial(draw_segmentation, found.segmentation)
            shapes[found.image_id].append(Shape(names[found.category_id], draw))
    photographs = [
        Photograph(
            image.file_name,
            partial(pictures.find, image.file_name),
            (image.height, image.width),
            tuple(shapes[image.id]),
        )
        for image in instances.images
    ]
    return gather(photographs, [names[number] for number in sorted(names)], path)


def draw_segmentation(segmentation: Any, size: Size) -> Mask:
    """Rasterise what COCO calls a segmentation: polygons, or run lengths as numbers or compressed.

    Raises MaskError for anything else, or run lengths of another size.
    """
    if isinstance(segmentation, list) and segmentation:
        return fill([_points(polygon) for polygon in segmentation], size)
    if not isinstance(segmentation, dict):
        raise MaskError("It has no outline, say a box alone. Export polygons or masks.")
    if segmentation.get("size") != list(size):
        raise MaskError(f"A mask's size is {segmentation.get('size')}, but its photograph's {list(size)}.")
    counts = segmentation.get("counts")
    if isinstance(counts, str | bytes):
        counts = coco_run_lengths(counts if isinstance(counts, str) else counts.decode("latin-1"))
    if not isinstance(counts, list):
        raise MaskError("Run lengths are neither a list nor a string; the file is damaged.")
    height, width = size
    return np.ascontiguousarray(unroll(counts, height * width).reshape(width, height).T)


def _points(polygon: Any) -> list[Point]:
    if not isinstance(polygon, list) or len(polygon) % 2 or not all(type(v) in (int, float) for v in polygon):
        raise MaskError("A polygon is no list of numbers x, y, x, y, …; the file is damaged.")
    return list(zip(polygon[::2], polygon[1::2], strict=True))
