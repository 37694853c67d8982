"""A folder of one's own: `images/` with photographs, and `masks/` in a layout that MaskFolders reads."""

from pathlib import Path

from kshot.annotations.folders import MaskFolders
from kshot.data.folds import COCO_CLASSES
from kshot.data.lists import class_images
from kshot.data.sampling import Fold
from kshot.errors import DataError, MaskError

COCO_MINI = "coco-mini-60"


class Folder(MaskFolders):
    """Photographs and masks that belong to no published benchmark.

    class_names: given, or read from the folder. Raises DataError if images or masks are missing.
    """

    def __init__(self, root: Path, class_names: tuple[str, ...] = ()) -> None:
        self.root = root
        missing = [str(root / name) for name in ("images", "masks") if not (root / name).is_dir()]
        if missing:
            raise DataError(
                f"There is no folder {' and no folder '.join(missing)}. A benchmark of one's own has images/ "
                "and masks/; docs/benchmarks.md shows both layouts."
            )
        super().__init__(root / "images", root / "masks", class_names)

    def image_path(self, name: str) -> Path:
        """Give the place of a photograph."""
        return self.images.get(name, self.root / "images" / f"{name}.jpg")

    def fold(self) -> Fold:
        """Look into every mask, and give all (image, class) pairs that show something.

        A photograph without a mask is not used. Raises DataError if a mask cannot be read.
        """
        fold, broken = self.scan()
        if broken:
            raise DataError(
                f"{len(broken)} masks in {self.root} cannot be used, the first: {broken[0]} "
                f"`kshot data check {self.root}` lists them all."
            )
        return fold

    def scan(self) -> tuple[Fold, list[str]]:
        """Look into every mask: the pairs that show something, and a line for each broken mask."""
        pairs, broken = [], []
        for name in self.images:
            try:
                pairs += [(name, class_id) for class_id in self.classes_in(name)]
            except MaskError as error:
                broken.append(str(error))
        images = {c: tuple(n for n, shown in pairs if shown == c) for c in range(len(self.class_names))}
        return Fold("folder", "all", 0, self.class_names, images, tuple(pairs)), broken

    def unpaired(self) -> list[str]:
        """Give a line for each photograph without a mask, and each mask without a photograph."""
        masks = {path.stem: path for path in sorted((self.root / "masks").rglob("*.png"))}
        lines = [f"Photograph {self.images[n]} has no mask." for n in self.images if n not in masks]
        return lines + [f"Mask {masks[name]} has no photograph." for name in masks if name not in self.images]


def coco_mini_fold() -> Fold:
    """Give the pairs of coco-mini-60: the COCO classes that VOC lacks, objects of 2048 px and more."""
    images = {c: tuple(names) for c, names in class_images("coco_mini_60").items()}
    pairs = sorted((name, c) for c, names in images.items() for name in names)
    return Fold(COCO_MINI, "all", 0, COCO_CLASSES, images, tuple(pairs))
