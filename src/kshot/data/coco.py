"""COCO-20i, directly from the official instances JSON, without precomputed PNG masks.

A class's ground truth is the union of its objects, each rasterized by pycocotools. Where objects of two
classes overlap, the pixel belongs to both, as an episode asks for one class only. Crowd regions (`iscrowd`),
which COCO's own scoring ignores, are 255 unless an object of the class covers them.
"""

import json
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kshot.annotations.coco import draw_segmentation
from kshot.data.base import Benchmark, register_dataset
from kshot.data.folds import COCO_CLASSES, NUM_FOLDS, novel_classes
from kshot.data.lists import class_images
from kshot.data.sampling import Fold
from kshot.errors import DataError, MaskError, reason_of
from kshot.types import IGNORE_INDEX, GroundTruth

LAYOUTS = {
    "2014": ("train2014", "val2014"),
    "2017": ("train2017", "val2017"),
}
"""COCO 2017 has the images of 2014 under the same ids in other splits; both layouts are supported."""


@register_dataset("coco")
class Coco(Benchmark):
    """COCO on disk: `root` contains `annotations/` and the image folders of 2014 or of 2017.

    The JSON files are read when the first mask is needed, which takes a minute and several gigabytes.
    Raises DataError that names the expected files.
    """

    class_names = COCO_CLASSES
    splits = ("train", "val")
    num_folds = NUM_FOLDS

    @staticmethod
    def read_fold(number: int, split: str) -> Fold:
        """Return a fold's own pairs, class by class in the field's order; `val` is the test split."""
        listed = class_images(f"coco20i/{split}")
        images = {c: tuple(listed[c]) for c in novel_classes("coco", number)}
        by_image = sorted(
            ((name, c) for c, names in images.items() for name in names), key=lambda pair: int(pair[0])
        )
        return Fold("coco", split, number, COCO_CLASSES, images, tuple(by_image), class_first=True)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders = next((s for s in LAYOUTS.values() if self._annotation_files(s)), ())
        if not self.folders:
            wanted = " or ".join(f"instances_{s}.json" for pair in LAYOUTS.values() for s in pair)
            raise DataError(f"Folder {root / 'annotations'} has no {wanted}. Give COCO's folder as --root.")

    def image_path(self, name: str) -> Path:
        """Return the path of an image by its COCO id."""
        paths = [self.root / split / _file_name(split, name) for split in self.folders]
        return next((path for path in paths if path.exists()), paths[-1])

    def ground_truth(self, name: str, class_id: int) -> GroundTruth:
        """Return the mask of a class in an image."""
        image = self.index.images.get(int(name))
        if image is None:
            raise MaskError(f"COCO image {name} is in none of {', '.join(map(str, self._files))}.")
        objects = self.index.objects.get((int(name), class_id), [])
        ground_truth = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        for is_crowd in (1, 0):  # objects last, on top of crowds
            for found in objects:
                if found["iscrowd"] == is_crowd:
                    ground_truth[draw_segmentation(found["segmentation"], ground_truth.shape)] = (
                        IGNORE_INDEX if is_crowd else 1
                    )
        return ground_truth

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Return the ids of the classes with annotations in an image."""
        return tuple(sorted(self.index.classes[int(name)]))

    def missing_annotations(self, split: str) -> list[str]:
        """Return the names of the missing annotation files that a split needs."""
        needed = self.folders if self.folders == LAYOUTS["2017"] else (f"{split}2014",)
        present = {path.name for path in self._files}
        return [name for name in (f"instances_{s}.json" for s in needed) if name not in present]

    @property
    def _files(self) -> list[Path]:
        return self._annotation_files(self.folders)

    @cached_property
    def index(self) -> "Index":
        """The contents of the annotation files. Raises DataError if they are not COCO's."""
        return Index(self._files)

    def _annotation_files(self, splits: tuple[str, ...]) -> list[Path]:
        paths = [self.root / "annotations" / f"instances_{split}.json" for split in splits]
        return [path for path in paths if path.exists()]


class Index:
    """The contents of the annotation files, by image and class."""

    def __init__(self, files: list[Path]) -> None:
        self.images: dict[int, dict[str, Any]] = {}
        self.objects: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        self.classes: dict[int, set[int]] = defaultdict(set)
        for path in files:
            content = _read_instances(path)
            self.images.update((image["id"], image) for image in content["images"])
            ids = {c["id"]: index for index, c in enumerate(sorted(content["categories"], key=_by_id))}
            for found in content["annotations"]:
                class_id = ids[found["category_id"]]
                self.objects[found["image_id"], class_id].append(found)
                self.classes[found["image_id"]].add(class_id)


def _by_id(category: dict[str, Any]) -> int:
    return int(category["id"])


def _read_instances(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        names = tuple(c["name"] for c in sorted(content["categories"], key=_by_id))
        missing = {"images", "annotations"} - content.keys()
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no COCO instances file ({reason_of(error)}).") from error
    if missing or names != COCO_CLASSES:
        raise DataError(
            f"{path} is no official COCO instances file: it must have images, annotations and COCO's 80 "
            f"categories, but has {len(names)} categories and lacks {sorted(missing) or 'nothing'}."
        )
    return content


def _file_name(split: str, name: str) -> str:
    return f"COCO_{split}_{int(name):012}.jpg" if split.endswith("2014") else f"{int(name):012}.jpg"
