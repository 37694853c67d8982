"""Write COCO instances: one document for many images, with run lengths and scores."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kshot.annotations.rasterize import pycocotools_mask
from kshot.annotations.writers.base import Format
from kshot.results import Instance, SegmentationResult
from kshot.results.instances import run_lengths


def coco_document(
    images: Iterable[tuple[str, SegmentationResult]], categories: Mapping[str, int]
) -> dict[str, Any]:
    """Return results as a COCO instances document: run lengths, and the mean probability as `score`.

    images: the name of each image's file, and its result; consumed one at a time. categories: the id of each
    class. Raises KeyError for a class that is not among them.
    """
    entries = (coco_entry(name, result, result.instances()) for name, result in images)
    return assemble_coco(entries, categories)


def coco_entry(file_name: str, result: SegmentationResult, instances: Sequence[Instance]) -> dict[str, Any]:
    """Return an image's part of the document, still without ids."""
    height, width = size = result.labels.shape
    annotations = [
        {
            "category": one.class_name,
            "iscrowd": 0,
            "segmentation": _compress(run_lengths(one, size), size),
            "area": one.area,
            "bbox": _coco_box(one),
            "score": round(one.score, 4),
        }
        for one in instances
    ]
    return {
        "image": {"file_name": file_name, "width": width, "height": height},
        "annotations": annotations,
    }


def assemble_coco(entries: Iterable[Mapping[str, Any]], categories: Mapping[str, int]) -> dict[str, Any]:
    """Return the document of all entries; ids are 1, 2, … in their order."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, entry in enumerate(entries, 1):
        images.append({"id": image_id, **entry["image"]})
        for given in entry["annotations"]:
            fields = {"category_id": categories[given["category"]], **given}
            del fields["category"]
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **fields})
    return {
        "info": {"description": "Segmented by kshot"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def _content(entries: Iterable[Any], categories: Mapping[str, int]) -> bytes:
    return json.dumps(assemble_coco(entries, categories)).encode()


def _coco_box(instance: Instance) -> list[int]:
    left, top, right, bottom = instance.box
    return [left, top, right - left, bottom - top]


def _compress(counts: list[int], size: tuple[int, int]) -> dict[str, Any]:
    runs = pycocotools_mask().frPyObjects({"size": list(size), "counts": counts}, *size)
    return {"size": list(size), "counts": runs["counts"].decode("ascii")}


COCO = Format(
    entry=coco_entry,
    run_files={"instances.json": _content},
    modules=("skimage", "pycocotools.mask"),
)
