"""Read images in one folder and their masks in another, in one of two layouts.

- `NAME.png` holds class numbers: 0 background, 1, 2, … the classes, 255 unknown. `classes.txt` beside the two
  folders names them, one name a line, or else `classes.json`: {"1": name, …}, or that under "classes". If all
  masks hold only 0 and 255, they show one class, "object".
- `CLASS/NAME.png` is black and white, in one folder per class.
"""

import json
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from kshot.annotations.annotated_images import AnnotatedImage, Annotations, Shape, collect
from kshot.annotations.label_maps import mask_values, read_binary_mask, read_index_mask, select_class
from kshot.annotations.rasterize import Mask, Size
from kshot.errors import DataError, MaskError
from kshot.io.image_files import open_checked
from kshot.io.images import IMAGE_SUFFIXES
from kshot.types import IGNORE_INDEX, GroundTruth

VOC_FOLDERS = "JPEGImages", ("SegmentationClassAug", "SegmentationClass")
"""VOC's images, and its masks: with SBD's if that folder exists, else its own."""

PASCAL_CLASSES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""PASCAL VOC's classes, in the order of their numbers in its masks, from 1."""


class MaskFolders:
    """A folder of images and a folder of their masks. class_names: given, or found in the folders."""

    def __init__(self, images: Path, masks: Path, class_names: tuple[str, ...] = ()) -> None:
        self.image_folder = images
        self.masks = masks
        self.class_folders = sorted(path.name for path in masks.iterdir() if path.is_dir())
        self.class_names = class_names or self._find_class_names()

    @cached_property
    def images(self) -> dict[str, Path]:
        """All images by name, without suffix. Raises DataError for two that differ only in their suffix."""
        found: dict[str, Path] = {}
        for path in sorted(self.image_folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                if path.stem in found:
                    raise DataError(f"{found[path.stem]} and {path} have one name: which does a mask mean?")
                found[path.stem] = path
        return found

    def mask_path(self, name: str, class_id: int) -> Path:
        """Return the path of the mask of a class in an image."""
        folder = self.masks / self.class_names[class_id] if self.class_folders else self.masks
        return folder / f"{name}.png"

    def ground_truth(self, name: str, class_id: int) -> GroundTruth:
        """Return the ground truth (H, W) of a class in an image."""
        path = self.mask_path(name, class_id)
        if self.class_folders or self._is_one_object:
            return read_binary_mask(path)
        return select_class(read_index_mask(path, range(len(self.class_names) + 1)), class_id + 1)

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Return the ids of the classes in an image; none if it has no mask."""
        if self.class_folders or self._is_one_object:
            shown = [c for c in range(len(self.class_names)) if self.mask_path(name, c).exists()]
            return tuple(c for c in shown if (self.ground_truth(name, c) == 1).any())
        path = self.masks / f"{name}.png"
        if not path.exists():
            return ()
        values = mask_values(read_index_mask(path, range(len(self.class_names) + 1)))
        return tuple(value - 1 for value in values if value not in (0, IGNORE_INDEX))

    @cached_property
    def _is_one_object(self) -> bool:
        has_one_name = not self.class_folders and self.class_names == ("object",)
        return has_one_name and self._highest in (0, IGNORE_INDEX)

    def _find_class_names(self) -> tuple[str, ...]:
        if self.class_folders:
            return tuple(self.class_folders)
        listed = self.masks.parent / "classes.txt"
        if listed.exists():
            return tuple(line.strip() for line in listed.read_text().splitlines() if line.strip())
        listed = listed.with_suffix(".json")
        if listed.exists():
            return read_class_names(listed)
        highest = self._highest
        if highest in (0, IGNORE_INDEX):
            return ("object",)
        return tuple(f"class {number}" for number in range(1, highest + 1))

    @cached_property
    def _highest(self) -> int:
        """The highest class number in the masks; 255 if they hold nothing but 0 and 255."""
        values: set[int] = set()
        for path in self.masks.glob("*.png"):
            with open_checked(path, MaskError) as image:
                if image.mode in ("1", "L", "P"):
                    values.update(mask_values(np.array(image, dtype=np.uint8)))
        numbers = values - {0, IGNORE_INDEX}
        return max(numbers) if numbers else max(values, default=0)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names from JSON: {"1": name, "2": name, …}, or that under the key "classes".

    Raises DataError that names the file, the faulty value and the remedy.
    """
    remedy = 'Write {"classes": {"1": "first name", "2": "second name"}}, numbered from 1 without a gap.'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # invalid JSON or UTF-8
        raise DataError(f"{path} is no JSON file ({error}). {remedy}") from error
    names = content.get("classes", content) if isinstance(content, dict) else content
    if not isinstance(names, dict) or not names:
        raise DataError(f"{path} names no classes: it holds {json.dumps(names)[:60]}. {remedy}")
    wanted = [str(number) for number in range(1, len(names) + 1)]
    if missing := [number for number in wanted if number not in names]:
        found = ", ".join(list(names)[:8])
        raise DataError(f"{path} has no class {missing[0]} among its {len(names)}: {found}. {remedy}")
    ordered = [names[number] for number in wanted]
    for number, name in zip(wanted, ordered, strict=True):
        if not isinstance(name, str) or not name.strip() or ordered.count(name) > 1:
            raise DataError(
                f"{path} names class {number} {json.dumps(name)}; each needs its own name. {remedy}"
            )
    return tuple(name.strip() for name in ordered)


def read_mask_folders(root: Path) -> Annotations | None:
    """Read a folder of masks beside a folder of images; None if `root` does not hold such folders.

    They are images/ and masks/, or VOC's, or two folders of images of which exactly one holds only masks.
    """
    folders = _find(root)
    if folders is None:
        return None
    images = [
        AnnotatedImage(
            path.name,
            partial(Path, path),
            None,
            tuple(
                Shape(folders.class_names[c], partial(_draw, folders, name, c))
                for c in folders.classes_in(name)
            ),
        )
        for name, path in folders.images.items()
    ]
    return collect(images, folders.class_names, root)


def _find(root: Path) -> MaskFolders | None:
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return MaskFolders(root / "images", root / "masks")
    images, masks = VOC_FOLDERS
    for name in masks:
        if (root / images).is_dir() and (root / name).is_dir():
            return MaskFolders(root / images, root / name, PASCAL_CLASSES)
    inside = sorted(path for path in root.iterdir() if path.is_dir() and _images_in(path))
    if len(inside) != 2 or any(path.suffix.lower() in (".json", ".xml") for path in root.iterdir()):
        return None
    are_masks = [_holds_only_masks(path) for path in inside]
    if are_masks == [True, False]:
        inside.reverse()
    elif are_masks != [False, True]:
        raise DataError(
            f"Which of {inside[0]} and {inside[1]} holds the masks cannot be told: masks are palette or "
            "greyscale PNGs, images are not. Call the folders images and masks."
        )
    return MaskFolders(inside[0], inside[1])


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _holds_only_masks(folder: Path) -> bool:
    """Return whether all images of a folder could be masks, judged by their headers."""
    for path in _images_in(folder):
        with open_checked(path, MaskError, decode=False) as image:
            if path.suffix.lower() != ".png" or image.mode not in ("1", "L", "P"):
                return False
    return True


def _draw(folders: MaskFolders, name: str, class_id: int, size: Size) -> Mask:
    ground_truth = folders.ground_truth(name, class_id)
    if ground_truth.shape != size:
        raise MaskError(
            f"The mask is {ground_truth.shape[1]} x {ground_truth.shape[0]} pixels, but the image is "
            f"{size[1]} x {size[0]}."
        )
    return np.asarray(ground_truth == 1)
