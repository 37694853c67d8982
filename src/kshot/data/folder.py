"""A folder of one's own: `images/` with photographs, and `masks/` in one of two layouts.

- `masks/NAME.png` holds class numbers: 0 background, 1, 2, … the classes, 255 unknown. `classes.txt`, one
  name a line, names them. If all masks hold only 0 and 255, they show one class, "object".
- `masks/CLASS/NAME.png` is black and white, one folder a class.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from kshot.data.folds import COCO_CLASSES
from kshot.data.lists import class_images
from kshot.data.sampling import Fold
from kshot.data.truth import Truth, pick_class, read_bright_mask, read_index_mask
from kshot.episode import IGNORE
from kshot.errors import DataError, MaskError
from kshot.images import IMAGE_SUFFIXES, opened

COCO_MINI = "coco-mini-60"


class Folder:
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
        self.folders = sorted(path.name for path in (root / "masks").iterdir() if path.is_dir())
        self.class_names = class_names or self._find_class_names()

    @cached_property
    def images(self) -> dict[str, Path]:
        """All photographs by name; two that differ only in their suffix raise DataError."""
        found: dict[str, Path] = {}
        for path in sorted((self.root / "images").iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                if path.stem in found:
                    raise DataError(f"{found[path.stem]} and {path} have one name: which does a mask mean?")
                found[path.stem] = path
        return found

    def image_path(self, name: str) -> Path:
        """Give the place of a photograph."""
        return self.images.get(name, self.root / "images" / f"{name}.jpg")

    def mask_path(self, name: str, class_id: int) -> Path:
        """Give the place of the mask that shows a class in a photograph."""
        inside = self.root / "masks"
        return (inside / self.class_names[class_id] if self.folders else inside) / f"{name}.png"

    def truth(self, name: str, class_id: int) -> Truth:
        """Read where a class is in a photograph."""
        path = self.mask_path(name, class_id)
        if self.folders or self._is_one_object:
            return read_bright_mask(path)
        return pick_class(read_index_mask(path, range(len(self.class_names) + 1)), class_id + 1)

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

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Give the ids of the classes in a photograph; none if it has no mask."""
        if self.folders or self._is_one_object:
            shown = [c for c in range(len(self.class_names)) if self.mask_path(name, c).exists()]
            return tuple(c for c in shown if (self.truth(name, c) == 1).any())
        path = self.root / "masks" / f"{name}.png"
        if not path.exists():
            return ()
        values = read_index_mask(path, range(len(self.class_names) + 1))
        return tuple(int(v) - 1 for v in np.unique(values) if v not in (0, IGNORE))

    @cached_property
    def _is_one_object(self) -> bool:
        return not self.folders and self.class_names == ("object",) and self._highest in (0, IGNORE)

    def _find_class_names(self) -> tuple[str, ...]:
        if self.folders:
            return tuple(self.folders)
        listed = self.root / "classes.txt"
        if listed.exists():
            return tuple(line.strip() for line in listed.read_text().splitlines() if line.strip())
        highest = self._highest
        if highest in (0, IGNORE):
            return ("object",)
        return tuple(f"class {number}" for number in range(1, highest + 1))

    @cached_property
    def _highest(self) -> int:
        """Find the highest class number in the masks; 255 if they hold nothing else but 0."""
        values: set[int] = set()
        for path in (self.root / "masks").glob("*.png"):
            with opened(path, MaskError) as picture:
                if picture.mode in ("1", "L", "P"):
                    values |= {int(v) for v in np.unique(np.array(picture, dtype=np.uint8))}
        numbers = values - {0, IGNORE}
        return max(numbers) if numbers else max(values, default=0)


def coco_mini_fold() -> Fold:
    """Give the pairs of coco-mini-60: the COCO classes that VOC lacks, objects of 2048 px and more."""
    images = {c: tuple(names) for c, names in class_images("coco_mini_60").items()}
    pairs = sorted((name, c) for c, names in images.items() for name in names)
    return Fold(COCO_MINI, "all", 0, COCO_CLASSES, images, tuple(pairs))
