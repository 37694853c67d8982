"""Read the support set of the command from masks or from an annotation file."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kshot.annotations.annotated_images import MAX_SUPPORTS
from kshot.annotations.reader import read_annotations
from kshot.annotations.summary import Omissions, Summary
from kshot.errors import DataError
from kshot.io.filetypes import file_type, is_dicom
from kshot.io.folders import first_names
from kshot.io.images import ImageSource, MaskSource, read_image, read_mask
from kshot.io.mask_values import object_classes
from kshot.io.overlays import add_caption, label_colour, montage, overlay
from kshot.io.raster_options import RasterOptions
from kshot.predict.class_masks import ClassMasks, ClassValues, read_class_masks
from kshot.predict.inputs import list_queries
from kshot.results import MAX_CLASSES, OBJECT, choose_label_values

if TYPE_CHECKING:  # files are read before torch, which takes seconds to import
    from kshot.segmenter import LabelledImages, Segmenter

logger = logging.getLogger(__name__)

CELL = 240
"""Width and height in pixels of a cell of the contact sheet, which the support images share."""

MAX_THUMBNAILS = 16
"""Support images in the preview: the first ones."""

MAX_NAMES = 8
"""Class names below the preview: the first ones."""

MASK_ENDS = ("_mask", "_labels")
"""What the name of a mask may add to that of its image."""

MAX_CHECKED = 5
"""Support images of a class that are segmented as a check: the first ones."""


@dataclass(frozen=True, eq=False)
class SupportSet:
    """Labelled images.

    classes: the images and masks of each class. preview: some of them, as one image. label_values: of the
    classes in label maps. summary: what an annotation file holds, and what was left out.
    """

    classes: Mapping[str, Sequence[tuple[ImageSource, MaskSource]]]
    preview: Image.Image
    label_values: Mapping[str, int]
    summary: Summary | None = None

    def sha256(self) -> str:
        """Return the digest of the class names, images and masks, in their order."""
        digest = hashlib.sha256()
        for name, pairs in self.classes.items():
            for source, mask in pairs:
                image, foreground = _read_pair(source, mask)
                digest.update(f"{name} {image.size} ".encode())
                digest.update(image.tobytes())
                digest.update(np.packbits(foreground).tobytes())
        return digest.hexdigest()

    def fit(self, segmenter: "Segmenter") -> None:
        """Fit a segmenter; log a warning for each class it misses in its own support images."""
        segmenter.fit(self.classes, classes=self.label_values)
        for name, pairs in self.classes.items():
            if warning := _check_class(segmenter, pairs, name):
                logger.warning(warning)

    def with_negatives(self, paths: Sequence[Path]) -> "SupportSet":
        """Return the support set with negative images, which show none of the classes."""
        images = map(read_image, paths)
        negatives = [(image, np.zeros((image.height, image.width), np.bool_)) for image in images]
        return replace(self, classes={name: [*pairs, *negatives] for name, pairs in self.classes.items()})


def read_masks(
    pairs: Sequence[tuple[Path, Path]], values: ClassValues, raster_options: RasterOptions
) -> SupportSet:
    """Return the support set of pairs of an image, GeoTIFF or volume and its mask.

    An image whose mask is empty is a negative of every class.
    values: each class's value in the masks, and that of "background" if it is not 0; None for a single class,
    whose mask may have any value but 0.
    Raises ImageError or MaskError for a file that cannot be used.
    """
    values = values or {OBJECT: None}
    names = tuple(object_classes(values))
    classes: dict[str, list[tuple[Image.Image, NDArray[np.bool_]]]] = {name: [] for name in names}
    label_values = choose_label_values({name: values[name] for name in names})
    thumbnails = []
    for path, mask in pairs:
        for image, masks in _read_labelled(path, mask, values, raster_options):
            empty = np.zeros((image.height, image.width), dtype=np.bool_)
            for name in masks or names:
                classes[name].append((image, masks.get(name, empty)))
            thumbnails.append(_thumbnail(image, masks, label_values))
    preview = _arrange(thumbnails[:MAX_THUMBNAILS], label_values)
    return SupportSet(classes, preview, label_values)


def pair_files(image: Path, mask: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of an image and its mask that --support names: one, or those of two folders.

    In two folders, the mask of `a/b.jpg` is `a/b`, `a/b_mask` or `a/b_labels` with any suffix. The first
    MAX_SUPPORTS pairs are used; what has no partner is logged. A folder with a mask file is a DICOM series.
    Raises DataError if there are no pairs, or if a mask is ambiguous.
    """
    if image.is_dir() and mask.is_dir():
        return _pair_folders(image, mask)
    if mask.is_dir() or (image.is_dir() and not any(map(is_dicom, image.iterdir()))):
        raise DataError(
            f"--support {image} {mask} cannot be paired. Give an image and its mask, a folder with a DICOM "
            "series and its mask, or two folders: images, and masks of the same names."
        )
    return [(image, mask)]


def _pair_folders(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    queries = dict((name.with_suffix(""), path) for path, name in list_queries([images], masks))
    found: dict[Path, Path] = {}
    unpaired = []
    for path, name in list_queries([masks], images):
        stem = name.with_suffix("")
        named = [stem, *(stem.with_name(stem.name.removesuffix(end)) for end in MASK_ENDS)]
        image = next((one for one in named if one in queries), None)
        if image is None:
            unpaired.append(path)
        elif image in found:
            raise DataError(f"{found[image]} and {path} may both be the mask of {queries[image]}. Keep one.")
        else:
            found[image] = path
    if not found:
        raise DataError(
            f"No mask in {masks} has the name of an image in {images}. The mask of a.jpg is a.png or "
            "a_mask.png."
        )
    unpaired += [path for name, path in queries.items() if name not in found]
    if unpaired:
        logger.warning(f"Left out, because they have no partner: {first_names(unpaired)}.")
    pairs = sorted((queries[image], mask) for image, mask in found.items())
    if len(pairs) > MAX_SUPPORTS:
        logger.info(f"{images} has {len(pairs)} labelled images; the first {MAX_SUPPORTS} are used.")
    return pairs[:MAX_SUPPORTS]


def read_annotated(path: Path, folder: Path | None, class_names: Sequence[str] | None) -> SupportSet:
    """Return the support set of an annotation file or folder: the first MAX_SUPPORTS images of each class.

    folder: where the images are. class_names: the classes to use, in this order; None: all.
    Logs the summary of what was read and left out, and which classes have more images.
    Raises DataError, ImageError or MaskError if nothing can be used.
    """
    annotations = read_annotations(path, folder)
    counts = annotations.count_images()
    chosen = annotations.select(class_names, limit=None)
    if len(chosen.class_names) > MAX_CLASSES:
        raise DataError(
            f"{path} has {len(chosen.class_names)} classes, but a label map holds {MAX_CLASSES}. Select "
            "classes: --classes cat,dog."
        )
    omissions = Omissions()
    classes: dict[str, list[tuple[ImageSource, MaskSource]]] = {name: [] for name in chosen.class_names}
    shown = list[tuple[ImageSource, ClassMasks]]()
    for source, masks in chosen.read(omissions, MAX_SUPPORTS):
        for name, mask in masks.items():
            classes[name].append((source, mask))
        if len(shown) < MAX_THUMBNAILS:
            shown.append((source, masks))
    classes = _without_empty(classes, class_names is not None, omissions)
    summary = annotations.summary.plus(omissions)
    summary.log(path)
    for name in classes:
        if counts[name] > MAX_SUPPORTS:
            logger.info(f"Class '{name}' has {counts[name]} images; the first {MAX_SUPPORTS} are used.")
    label_values = choose_label_values(dict.fromkeys(classes))
    thumbnails = [_thumbnail(read_image(source), masks, label_values) for source, masks in shown]
    return SupportSet(classes, _arrange(thumbnails, label_values), label_values, summary)


def _without_empty(
    classes: dict[str, list[tuple[ImageSource, MaskSource]]], are_required: bool, omissions: Omissions
) -> dict[str, list[tuple[ImageSource, MaskSource]]]:
    """Return the classes that have an image; count the others, or raise DataError if they are required."""
    empty = [name for name, pairs in classes.items() if not pairs]
    if empty and are_required:
        raise DataError(f"No image of class '{empty[0]}' can be used; the lines above say why.")
    omissions.add_all("class", "without an image that can be used", empty)
    return {name: pairs for name, pairs in classes.items() if pairs}


def _read_labelled(
    path: Path, mask: Path, values: ClassValues, raster_options: RasterOptions
) -> list[tuple[Image.Image, ClassMasks]]:
    """Return the support images of a file: one of an image, several of a GeoTIFF or a volume."""
    kind = file_type(path)
    if kind == "image":
        image = read_image(path)
        size = image.height, image.width
        return [(image, read_class_masks(mask, size, values, may_be_empty=True))]
    # Imported here, since most runs segment ordinary images.
    from kshot.predict.raster_supports import read_geotiff_supports, read_volume_supports

    read = read_geotiff_supports if kind == "geotiff" else read_volume_supports
    return read(path, mask, values, raster_options)


def _read_pair(source: ImageSource, mask: MaskSource) -> tuple[Image.Image, NDArray[np.bool_]]:
    image = read_image(source)
    return image, read_mask(mask, (image.height, image.width), may_be_empty=True)


def _check_class(fitted: "Segmenter", pairs: "LabelledImages", name: str) -> str | None:
    """Return a warning if the first support images of a class have a low mean support IoU."""
    from kshot.predict.support_check import low_iou_warning, support_iou

    found = list[float]()
    for source, mask in pairs:
        image, foreground = _read_pair(source, mask)
        if foreground.any() and len(found) < MAX_CHECKED:
            single_support = fitted.clone()
            shot = fitted.support_set[name].shots[len(found)]
            single_support.support_set = {name: single_support.learn([shot])}
            found.append(support_iou(single_support, image, foreground))
    options = ", --image-size, --tile, or --model prototype"
    if not fitted.method.needs_training:
        options = ", --image-size or --tile"
    return low_iou_warning(float(np.mean(found)), f"'{name}'", other_remedies=options)


def _thumbnail(
    image: Image.Image, masks: Mapping[str, NDArray[np.bool_]], values: Mapping[str, int]
) -> Image.Image:
    """Return a small overlay of a support image; where masks overlap, the later class is shown."""
    labels = np.zeros((image.height, image.width), dtype=np.uint8)
    for name, value in values.items():
        if name in masks:
            labels[masks[name]] = value
    return ImageOps.contain(overlay(image, labels), (CELL, CELL))


def _arrange(thumbnails: list[Image.Image], values: Mapping[str, int]) -> Image.Image:
    """Return a montage of thumbnails, with the names and colours of several classes below."""
    preview = montage(thumbnails, CELL)
    if len(values) > 1:
        for name, value in list(values.items())[:MAX_NAMES]:
            preview = add_caption(preview, name, label_colour(value))
    return preview
