"""PASCAL-5i: VOC 2012 images with the masks of SegmentationClassAug (VOC's own and SBD's)."""

from pathlib import Path

import numpy as np

from kshot.annotations.label_maps import read_index_mask, select_class
from kshot.data.base import Benchmark, register_dataset
from kshot.data.folds import NUM_FOLDS, PASCAL_CLASSES, novel_classes
from kshot.data.lists import pascal_pairs
from kshot.data.sampling import Fold
from kshot.errors import DataError
from kshot.types import IGNORE_INDEX, GroundTruth

IMAGES, MASKS = "JPEGImages", "SegmentationClassAug"


@register_dataset("pascal")
class Pascal(Benchmark):
    """VOC2012 on disk. `root` is the folder VOC2012, or one that contains it or VOCdevkit/VOC2012.

    Raises DataError that names every missing folder.
    """

    class_names = PASCAL_CLASSES
    splits = ("train", "val")
    num_folds = NUM_FOLDS

    @staticmethod
    def read_fold(number: int, split: str) -> Fold:
        """Return a fold's own pairs in the field's order: `val` is its test, `train` base data of others."""
        pairs = pascal_pairs(split, number)
        class_ids = novel_classes("pascal", number)
        images = {c: tuple(name for name, class_id in pairs if class_id == c) for c in class_ids}
        return Fold("pascal", split, number, PASCAL_CLASSES, images, tuple(pairs))

    def __init__(self, root: Path) -> None:
        folders = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
        self.folder = next((folder for folder in folders if (folder / IMAGES).is_dir()), root)
        missing = [str(self.folder / name) for name in (IMAGES, MASKS) if not (self.folder / name).is_dir()]
        if missing:
            raise DataError(
                f"There is no folder {' and no folder '.join(missing)}. Give the folder VOC2012 as --root; "
                "`kshot data prepare pascal` builds it from the official archives."
            )

    def image_path(self, name: str) -> Path:
        """Return the path of an image."""
        return self.folder / IMAGES / f"{name}.jpg"

    def ground_truth(self, name: str, class_id: int) -> GroundTruth:
        """Return the mask of a class; 255 on VOC's object borders."""
        return select_class(self._labels(name), class_id + 1)

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Return the ids of the classes in an image."""
        return tuple(int(v) - 1 for v in np.unique(self._labels(name)) if v not in (0, IGNORE_INDEX))

    def _labels(self, name: str) -> GroundTruth:
        return read_index_mask(self.folder / MASKS / f"{name}.png", range(len(PASCAL_CLASSES) + 1))
