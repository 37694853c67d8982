"""A user folder: `images/`, and `masks/` in a layout that MaskFolders reads."""

from pathlib import Path
from typing import ClassVar

from kshot.annotations.folders import MaskFolders
from kshot.annotations.summary import Summary
from kshot.data.base import register_dataset
from kshot.data.folds import COCO_CLASSES
from kshot.data.lists import class_images
from kshot.data.sampling import Fold
from kshot.errors import DataError, MaskError

COCO_MINI = "coco-mini-60"


class Folder(MaskFolders):
    """Images and masks outside of the published benchmarks.

    class_names: given, or read from the folder. Raises DataError if images or masks are missing.
    """

    splits: ClassVar[tuple[str, ...]] = ()
    num_folds: ClassVar[int] = 1

    def __init__(self, root: Path, class_names: tuple[str, ...] = ()) -> None:
        self.root = root
        missing = [str(root / name) for name in ("images", "masks") if not (root / name).is_dir()]
        if missing:
            raise DataError(
                f"There is no folder {' and no folder '.join(missing)}. A data folder needs images/ and "
                "masks/; docs/benchmarks.md shows both layouts."
            )
        super().__init__(root / "images", root / "masks", class_names)

    def image_path(self, name: str) -> Path:
        """Return the path of an image."""
        return self.images.get(name, self.root / "images" / f"{name}.jpg")

    def fold(self) -> Fold:
        """Return all (image, class) pairs with an object; reads every mask.

        Images without a mask are skipped. Raises DataError if a mask cannot be read.
        """
        fold, broken = self.scan()
        if broken:
            raise DataError(
                f"{len(broken)} masks in {self.root} cannot be used, the first: {broken[0]} "
                f"`kshot data check {self.root}` lists them all."
            )
        self._report(fold)
        return fold

    def _report(self, fold: Fold) -> None:
        """Log what the folder holds and what was left out."""
        omissions = self.count_omissions()
        shown = {name for name, _ in fold.queries}
        empty = [path for name, path in self.images.items() if name not in shown and self.has_mask(name)]
        omissions.add_all("image", "without objects", empty)
        omissions.add_all(
            "class", "without objects", (fold.class_names[c] for c, names in fold.images.items() if not names)
        )
        num_classes = sum(bool(names) for names in fold.images.values())
        summary = Summary(len(shown), len(fold.queries), num_classes, omissions.left_out(), self.notes)
        summary.log(self.root)

    def scan(self) -> tuple[Fold, list[str]]:
        """Return all (image, class) pairs with an object, and a line for each broken mask."""
        pairs, broken = [], []
        for name in self.images:
            try:
                pairs += [(name, class_id) for class_id in self.classes_in(name)]
            except MaskError as error:
                broken.append(str(error))
        images = {c: tuple(n for n, shown in pairs if shown == c) for c in range(len(self.class_names))}
        return Fold("folder", "all", 0, self.class_names, images, tuple(pairs)), broken

    def unpaired(self) -> list[str]:
        """Return a line for each image without a mask, and each mask without an image."""
        lines = [
            f"Image {path} has no mask." for name, path in self.images.items() if not self.has_mask(name)
        ]
        return lines + [f"Mask {path} has no image." for path in self.masks_without_image()]


@register_dataset(COCO_MINI)
class CocoMini(Folder):
    """The COCO classes that VOC lacks, with objects of 2048 px and more, as a folder of images and masks."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, COCO_CLASSES)

    @staticmethod
    def read_fold(number: int, split: str) -> Fold:
        """Return all pairs."""
        images = {c: tuple(names) for c, names in class_images("coco_mini_60").items()}
        pairs = sorted((name, c) for c, names in images.items() for name in names)
        return Fold(COCO_MINI, "all", 0, COCO_CLASSES, images, tuple(pairs))
