"""Answers as annotation files: COCO's instances for many photographs, LabelMe's for one.

Each connected component of a class's mask becomes an object of its own; specks of fewer than
`components.MIN_COMPONENT` pixels are left out.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.annotations.components import Component, components, measures, outline, run_lengths
from kshot.annotations.rasterize import coco_masks
from kshot.errors import KshotError
from kshot.io.files import encoded

LABELME_VERSION = "5.5.0"
"""Of the format that is written; LabelMe has read mask shapes since 5.3."""


class Segmented(NamedTuple):
    """A photograph's answer.

    file_name: as the documents shall name it. masks: each class's (H, W), by name; they may overlap.
    probabilities: each class's foreground probability (H, W) in [0, 1].
    """

    file_name: str
    masks: Mapping[str, NDArray[np.bool_]]
    probabilities: Mapping[str, NDArray[np.float32]]

    @property
    def size(self) -> tuple[int, int]:
        """Give the photograph's (height, width). Raises KshotError if its maps do not agree, or are none."""
        sizes = {maps.shape for maps in (*self.masks.values(), *self.probabilities.values())}
        if len(sizes) != 1 or self.masks.keys() != self.probabilities.keys():
            raise KshotError(
                f"'{self.file_name}' has maps of the sizes {sorted(sizes)}; every class needs a mask and a "
                "probability, all of one size."
            )
        height, width = next(iter(sizes))
        return height, width


class Instances:
    """COCO's instances, photograph by photograph; keeps run lengths, but no masks."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.categories = {name: number for number, name in enumerate(class_names, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, photograph: Segmented) -> None:
        """Add a photograph and what it shows. Raises KshotError for a class that is not among the names."""
        self.add_entry(self.entry(photograph))

    def entry(self, photograph: Segmented) -> dict[str, Any]:
        """Give a photograph's part of the document, before its numbers are known; see `add`."""
        if unknown := photograph.masks.keys() - self.categories.keys():
            raise KshotError(
                f"'{photograph.file_name}' shows '{min(unknown)}', which is not among the classes."
            )
        height, width = photograph.size
        annotations = [
            {
                "category_id": self.categories[name],
                "iscrowd": 0,
                "segmentation": _compressed(run_lengths(component, (height, width)), (height, width)),
                "area": component.area,
                "bbox": list(component.box),
                "score": round(component.score, 4),
            }
            for name, component in _objects(photograph)
        ]
        image = {"file_name": photograph.file_name, "width": width, "height": height}
        return {"image": image, "annotations": annotations}

    def add_entry(self, entry: Mapping[str, Any]) -> None:
        """Add a photograph's part, with the next numbers."""
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, **entry["image"]})
        for annotation in entry["annotations"]:
            self.annotations.append({"id": len(self.annotations) + 1, "image_id": image_id, **annotation})

    def document(self) -> dict[str, Any]:
        """Give the whole document, ready for JSON."""
        return {
            "info": {"description": "Segmented by kshot"},
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": number, "name": name} for name, number in self.categories.items()],
        }


def coco_document(photographs: Iterable[Segmented], class_names: Sequence[str]) -> dict[str, Any]:
    """Write answers as COCO instances: run lengths, and the mean probability as `score`.

    class_names: their categories are 1, 2, … in this order. Photographs are taken one at a time.
    Raises KshotError for a class that is not among the names.
    """
    instances = Instances(class_names)
    for photograph in photographs:
        instances.add(photograph)
    return instances.document()


def labelme_document(photograph: Segmented) -> dict[str, Any]:
    """Write an answer as a LabelMe file: a polygon for each component, or a mask where it has holes.

    file_name: the photograph's path relative to the file's folder.
    """
    height, width = photograph.size
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [_labelme_shape(name, component) for name, component in _objects(photograph)],
        "imagePath": photograph.file_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def check_libraries() -> None:
    """Raise KshotError now, rather than at the first answer, if what writes documents is not installed."""
    coco_masks()
    measures()


def _objects(photograph: Segmented) -> Iterator[tuple[str, Component]]:
    for name, mask in photograph.masks.items():
        for component in components(mask, photograph.probabilities[name]):
            yield name, component


def _compressed(counts: list[int], size: tuple[int, int]) -> dict[str, Any]:
    runs = coco_masks().frPyObjects({"size": list(size), "counts": counts}, *size)
    return {"size": list(size), "counts": runs["counts"].decode("ascii")}


def _labelme_shape(name: str, component: Component) -> dict[str, Any]:
    polygon = outline(component)
    left, top, width, height = component.box
    corners = [(left, top), (left + width - 1, top + height - 1)]
    return {
        "label": name,
        "points": [[float(x), float(y)] for x, y in (corners if polygon is None else polygon)],
        "group_id": None,
        "description": "",
        "shape_type": "mask" if polygon is None else "polygon",
        "flags": {},
        "mask": _png(component.mask) if polygon is None else None,
    }


def _png(mask: NDArray[np.bool_]) -> str:
    return base64.b64encode(encoded(Image.fromarray(mask.astype(np.uint8)), "PNG")).decode("ascii")
