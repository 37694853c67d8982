"""Write results as annotation files: COCO instances for many images, LabelMe for one.

Each connected component of a class's mask becomes one object; components of fewer than
`components.MIN_COMPONENT` pixels are skipped.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.annotations.components import (
    Component,
    connected_components,
    outline,
    run_lengths,
    skimage_measure,
)
from kshot.annotations.rasterize import pycocotools_mask
from kshot.errors import KshotError
from kshot.io.files import encode_image

LABELME_VERSION = "5.5.0"
"""Version of the written format; LabelMe has read mask shapes since 5.3."""


class SegmentedImage(NamedTuple):
    """The masks of an image.

    file_name: as the documents name it. masks: each class's (H, W), by name; they may overlap.
    probabilities: each class's foreground probability (H, W) in [0, 1].
    """

    file_name: str
    masks: Mapping[str, NDArray[np.bool_]]
    probabilities: Mapping[str, NDArray[np.float32]]

    @property
    def size(self) -> tuple[int, int]:
        """The image's (height, width). Raises KshotError if there are no maps, or maps of several sizes."""
        sizes = {maps.shape for maps in (*self.masks.values(), *self.probabilities.values())}
        if len(sizes) != 1 or self.masks.keys() != self.probabilities.keys():
            raise KshotError(
                f"'{self.file_name}' has maps of the sizes {sorted(sizes)}; every class needs a mask and a "
                "probability, all of one size."
            )
        height, width = next(iter(sizes))
        return height, width


class CocoInstances:
    """A COCO instances document, built image by image; keeps run lengths, not masks."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.categories = {name: number for number, name in enumerate(class_names, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, image: SegmentedImage) -> None:
        """Add an image and its objects. Raises KshotError for a class that is not in `class_names`."""
        self.add_entry(self.entry(image))

    def entry(self, image: SegmentedImage) -> dict[str, Any]:
        """Return an image's part of the document, still without ids; see `add`."""
        if unknown := image.masks.keys() - self.categories.keys():
            raise KshotError(f"'{image.file_name}' shows '{min(unknown)}', which is not among the classes.")
        height, width = image.size
        annotations = [
            {
                "category_id": self.categories[name],
                "iscrowd": 0,
                "segmentation": _compress(run_lengths(component, (height, width)), (height, width)),
                "area": component.area,
                "bbox": list(component.box),
                "score": round(component.score, 4),
            }
            for name, component in _objects(image)
        ]
        header = {"file_name": image.file_name, "width": width, "height": height}
        return {"image": header, "annotations": annotations}

    def add_entry(self, entry: Mapping[str, Any]) -> None:
        """Add an image's part, with the next ids."""
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, **entry["image"]})
        for annotation in entry["annotations"]:
            self.annotations.append({"id": len(self.annotations) + 1, "image_id": image_id, **annotation})

    def document(self) -> dict[str, Any]:
        """Return the whole document, ready for JSON."""
        return {
            "info": {"description": "Segmented by kshot"},
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": number, "name": name} for name, number in self.categories.items()],
        }


def coco_document(images: Iterable[SegmentedImage], class_names: Sequence[str]) -> dict[str, Any]:
    """Return results as a COCO instances document: run lengths, and the mean probability as `score`.

    images: consumed one at a time. class_names: get the category ids 1, 2, … in this order.
    Raises KshotError for a class that is not in `class_names`.
    """
    instances = CocoInstances(class_names)
    for image in images:
        instances.add(image)
    return instances.document()


def labelme_document(image: SegmentedImage) -> dict[str, Any]:
    """Return a result as a LabelMe document: a polygon per component, or a mask if it has holes.

    The image's file_name must be relative to the folder of the document.
    """
    height, width = image.size
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [_labelme_shape(name, component) for name, component in _objects(image)],
        "imagePath": image.file_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def check_libraries() -> None:
    """Raise KshotError if a library for writing documents is missing. Call it before a long run."""
    pycocotools_mask()
    skimage_measure()


def _objects(image: SegmentedImage) -> Iterator[tuple[str, Component]]:
    for name, mask in image.masks.items():
        for component in connected_components(mask, image.probabilities[name]):
            yield name, component


def _compress(counts: list[int], size: tuple[int, int]) -> dict[str, Any]:
    runs = pycocotools_mask().frPyObjects({"size": list(size), "counts": counts}, *size)
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
    return base64.b64encode(encode_image(Image.fromarray(mask.astype(np.uint8)), "PNG")).decode("ascii")
