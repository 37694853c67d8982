"""FSS-1000 (Li et al. 2020): 1000 classes of ten images, with black and white masks."""

from pathlib import Path

from kshot.annotations.label_maps import read_binary_mask
from kshot.data.base import Benchmark, register_dataset
from kshot.data.lists import fss_classes
from kshot.data.sampling import Fold
from kshot.errors import DataError
from kshot.types import GroundTruth

SPLITS = ("train", "val", "test")
IMAGES_PER_CLASS = 10

CLASSES = tuple(name for split in SPLITS for name in fss_classes(split))
"""All class names: 520 for training, then 240 for validation, 240 for test, each sorted (HSNet's ids)."""


@register_dataset("fss1000")
class FSS1000(Benchmark):
    """FSS-1000 on disk: `root` contains a folder for each class, with 1.jpg, 1.png … 10.jpg, 10.png.

    Raises DataError if no class's folder is there.
    """

    class_names = CLASSES
    splits = SPLITS

    @staticmethod
    def read_fold(number: int, split: str) -> Fold:
        """Return a split's pairs: queries class by class, in the order of names 1, 10, 2, 3, … (HSNet)."""
        numbers = [str(number) for number in range(1, IMAGES_PER_CLASS + 1)]
        names = set(fss_classes(split))
        images = {
            class_id: tuple(f"{name}/{number}" for number in numbers)
            for class_id, name in enumerate(CLASSES)
            if name in names
        }
        queries = [(f"{CLASSES[c]}/{number}", c) for c in images for number in sorted(numbers)]
        return Fold("fss1000", split, 0, CLASSES, images, tuple(queries))

    def __init__(self, root: Path) -> None:
        folders = [root, root / "FSS-1000", root / "fewshot_data"]
        found = next((folder for folder in folders if _has_a_class(folder)), None)
        if found is None:
            raise DataError(
                f"Folder {root} contains none of the 1000 classes (no folder '{CLASSES[0]}', '{CLASSES[1]}' …"
                "). Give the folder that contains them as --root."
            )
        self.folder = found

    def image_path(self, name: str) -> Path:
        """Return the path of an image, `class/number`."""
        return self.folder / f"{name}.jpg"

    def ground_truth(self, name: str, class_id: int) -> GroundTruth:
        """Return the mask of the class: an image shows its folder's class and no other."""
        return read_binary_mask(self.folder / f"{name}.png")

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Return the id of an image's class, which is its folder."""
        return (CLASSES.index(name.partition("/")[0]),)


def _has_a_class(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in CLASSES)
