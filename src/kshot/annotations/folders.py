"""Read images in one folder and their masks in another, in one of two layouts.

- `NAME.png` holds class numbers: 0 background, 1, 2, … the classes, 255 unknown. A file beside the two
  folders names them (see class_names.py); CVAT's `labelmap.txt` also has the colours of coloured masks. If
  all masks hold only 0 and 255, or are label images of 16 bits, they show one class, "object".
- `CLASS/NAME.png` is black and white, in one folder per class.
"""

import logging
from collections import Counter, defaultdict
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kshot.annotations.annotated_images import AnnotatedImage, Annotations, Shape, collect
from kshot.annotations.class_names import find_class_names
from kshot.annotations.colour_masks import read_colour_mask
from kshot.annotations.label_maps import mask_values, read_index_mask, read_object_mask, select_class
from kshot.annotations.rasterize import Mask, Size
from kshot.annotations.summary import Omissions
from kshot.errors import DataError, MaskError
from kshot.io.file_names import comparable, files_in, is_left_behind
from kshot.io.image_files import open_checked
from kshot.io.images import IMAGE_SUFFIXES
from kshot.io.mask_values import MAX_CLASS_NUMBER, first_few, read_mask_values
from kshot.types import IGNORE_INDEX, GroundTruth

logger = logging.getLogger(__name__)

VOC_FOLDERS = "JPEGImages", ("SegmentationClassAug", "SegmentationClassPNG", "SegmentationClass")
"""VOC's images, and its masks: SBD's, those of LabelMe's converter, or its own, in the first such folder."""

PASCAL_CLASSES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""PASCAL VOC's classes, in the order of their numbers in its masks, from 1."""


class MaskFolders:
    """A folder of images and a folder of their masks.

    class_names: given, or found in the folders. assumed_names: used if there is no file with names.
    notes: what was assumed, one sentence each.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        class_names: tuple[str, ...] = (),
        assumed_names: tuple[str, ...] = (),
    ) -> None:
        self.image_folder = images
        self.masks = masks
        self.class_folders = sorted(
            path.name for path in masks.iterdir() if path.is_dir() and not is_left_behind(path.name)
        )
        self._named = None if class_names or self.class_folders else find_class_names(masks.parent)
        self.notes = self._named.notes if self._named is not None else ()
        self.class_names = class_names or self._find_class_names(assumed_names)
        self._masks_by_name: dict[Path, dict[str, list[Path]]] = {}

    @cached_property
    def images(self) -> dict[str, Path]:
        """All images by name, without suffix. Raises DataError for two that differ only in their suffix."""
        found: dict[str, Path] = {}
        for path in files_in(self.image_folder):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                if path.stem in found:
                    raise DataError(f"{found[path.stem]} and {path} have one name: which does a mask mean?")
                found[path.stem] = path
        return found

    def mask_path(self, name: str, class_id: int) -> Path:
        """Return the path of the mask of a class in an image, which may not exist.

        Names match in any Unicode form and percent-encoding. Raises MaskError if several masks match.
        """
        folder = self.masks / self.class_names[class_id] if self.class_folders else self.masks
        if folder not in self._masks_by_name:
            by_name = self._masks_by_name.setdefault(folder, defaultdict(list))
            for path in filter(_is_png, files_in(folder)):
                by_name[comparable(path.stem)].append(path)
        found = self._masks_by_name[folder].get(comparable(name), [])
        found = [path for path in found if path.stem == name] or found
        if len(found) > 1:
            raise MaskError(f"The mask of image {name!r} may be {found[0]} or {found[1]}. Keep one of them.")
        return found[0] if found else folder / f"{name}.png"

    def ground_truth(self, name: str, class_id: int) -> GroundTruth:
        """Return the ground truth (H, W) of a class in an image."""
        path = self.mask_path(name, class_id)
        if self.class_folders or self._is_one_object:
            return read_object_mask(path, may_be_full=bool(self.class_folders))
        return select_class(self._read_labels(path), class_id + 1)

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Return the ids of the classes in an image; none if it has no mask."""
        if self.class_folders or self._is_one_object:
            shown = [c for c in range(len(self.class_names)) if self.mask_path(name, c).exists()]
            return tuple(c for c in shown if (self.ground_truth(name, c) == 1).any())
        path = self.mask_path(name, 0)
        if not path.exists():
            return ()
        values = mask_values(self._read_labels(path))
        return tuple(value - 1 for value in values if value not in (0, IGNORE_INDEX))

    def has_mask(self, name: str) -> bool:
        """Return whether there is a mask of an image."""
        return comparable(name) in self._mask_keys

    def count_omissions(self) -> Omissions:
        """Count images without masks, masks without images, and what is neither."""
        omissions = Omissions()
        alone = (path for name, path in self.images.items() if not self.has_mask(name))
        omissions.add_all("image", "without a mask", alone)
        omissions.add_all("mask", "without an image", self.masks_without_image())
        others = [path for path in files_in(self.image_folder) if path.suffix.lower() not in IMAGE_SUFFIXES]
        others += [path for path in self._files_of_masks() if not _is_png(path)]
        for path in others:
            omissions.add("file", f"({path.suffix.lower() or 'no suffix'})", str(path))
        beside = files_in(self.masks) if self.class_folders else []
        omissions.add_all("file", "beside the folders of classes", beside)
        inside = (
            path for path in self.image_folder.iterdir() if path.is_dir() and not is_left_behind(path.name)
        )
        omissions.add_all("folder", "in the folder of images", sorted(inside))
        return omissions

    def masks_without_image(self) -> list[Path]:
        """Return the masks to which no image belongs."""
        images = {comparable(name) for name in self.images}
        masks = [path for path in self._files_of_masks() if _is_png(path)]
        twice = Counter((path.parent, comparable(path.stem)) for path in masks)
        return [
            path
            for path in masks
            if comparable(path.stem) not in images
            or (twice[path.parent, comparable(path.stem)] > 1 and path.stem not in self.images)
        ]

    @cached_property
    def _mask_keys(self) -> set[str]:
        return {comparable(path.stem) for path in self._files_of_masks() if _is_png(path)}

    def _files_of_masks(self) -> list[Path]:
        folders = [self.masks / name for name in self.class_folders] or [self.masks]
        return [path for folder in folders for path in files_in(folder)]

    def _read_labels(self, path: Path) -> GroundTruth:
        """Return a mask of class numbers (H, W), also of a coloured one that a label map explains."""
        if self._named is not None and self._named.colours:
            return read_colour_mask(path, self._named)
        return read_index_mask(path, range(len(self.class_names) + 1))

    @cached_property
    def _is_one_object(self) -> bool:
        has_one_name = not self.class_folders and len(self.class_names) == 1
        return has_one_name and (self._contents.highest in (0, IGNORE_INDEX) or self._contents.has_instances)

    def _find_class_names(self, assumed: tuple[str, ...]) -> tuple[str, ...]:
        if self.class_folders:
            return tuple(self.class_folders)
        if self._named is not None:
            return self._named.names
        if assumed:
            self.notes = (
                f"Class names are assumed to be VOC's ({assumed[0]}, …): there is no class_names.txt "
                f"or labelmap.txt in {self.masks.parent}.",
            )
            return assumed
        if self._contents.is_mixed:
            raise DataError(
                f"{self.masks} holds label images of 16 bits and masks of 8 bits: are their values instances "
                "or classes? Save all of them with 8 bits, or name the one class in classes.txt."
            )
        highest = self._contents.highest
        if self._contents.has_instances or highest in (0, IGNORE_INDEX):
            return ("object",)
        return tuple(f"class {number}" for number in range(1, highest + 1))

    @cached_property
    def _contents(self) -> "MaskContents":
        """What the masks hold."""
        values: set[int] = set()
        num_deep = num_instances = 0
        paths = list(filter(_is_png, files_in(self.masks)))
        for path in paths:
            try:
                mask = read_mask_values(path, f"'{path}'")
            except MaskError:
                continue  # reported where the mask is used
            found = set(np.unique(mask.values).tolist())
            num_deep += mask.is_deep
            num_instances += mask.is_deep and (len(found - {0}) > 1 or max(found) > IGNORE_INDEX)
            values |= found
        numbers = sorted(values - {0, IGNORE_INDEX})
        if not num_instances and len(numbers) > 1 and numbers[-1] > MAX_CLASS_NUMBER + len(numbers):
            logger.warning(f"{self.masks}: the values {first_few(numbers)} are taken as class numbers.")
        is_mixed = num_instances > 0 and num_deep < len(paths) and len(numbers) > 1
        return MaskContents(numbers[-1] if numbers else max(values, default=0), num_instances > 0, is_mixed)


class MaskContents(NamedTuple):
    """What the masks of a folder hold.

    highest: the highest class number; 255 if they hold nothing but 0 and 255. has_instances: whether values
    of 16 bits are the ids of instances. is_mixed: whether others of 8 bits may be class numbers.
    """

    highest: int
    has_instances: bool
    is_mixed: bool


def read_mask_folders(root: Path) -> Annotations | None:
    """Read a folder of masks beside a folder of images; None if `root` does not hold such folders.

    They are images/ and masks/, or VOC's, or two folders of images of which exactly one holds only masks.
    """
    folders = _find(root)
    if folders is None:
        return None
    omissions = folders.count_omissions()
    images = []
    first_error: MaskError | None = None
    for name, path in folders.images.items():
        try:
            ids = folders.classes_in(name)
        except MaskError as error:
            first_error = first_error or error
            omissions.add("mask", "that cannot be used", str(error))
            continue
        if folders.has_mask(name):
            shapes = tuple(Shape(folders.class_names[c], partial(_draw, folders, name, c)) for c in ids)
            images.append(AnnotatedImage(path.name, partial(Path, path), None, shapes))
    if first_error is not None and not any(image.shapes for image in images):
        raise first_error
    return collect(images, folders.class_names, root, omissions, folders.notes)


def _find(root: Path) -> MaskFolders | None:
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return MaskFolders(root / "images", root / "masks")
    images, masks = VOC_FOLDERS
    for name in masks:
        if (root / images).is_dir() and (root / name).is_dir():
            return MaskFolders(root / images, root / name, assumed_names=PASCAL_CLASSES)
    inside = sorted(
        path
        for path in root.iterdir()
        if path.is_dir() and not is_left_behind(path.name) and _images_in(path)
    )
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


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"


def _images_in(folder: Path) -> list[Path]:
    return [path for path in files_in(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def _holds_only_masks(folder: Path) -> bool:
    """Return whether all images of a folder could be masks, judged by their headers."""
    for path in _images_in(folder):
        with open_checked(path, MaskError, decode=False) as image:
            is_grey = image.mode in ("1", "L", "P") or image.mode.startswith("I;16")
            if path.suffix.lower() != ".png" or not is_grey:
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
