"""Labelled examples for the command, from pictures of masks or from an annotation file."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kshot.annotations.annotated_images import MAX_SUPPORTS
from kshot.annotations.reader import read_annotations
from kshot.errors import DataError
from kshot.io.images import ImageSource, MaskSource, read_image, read_mask
from kshot.io.overlays import add_caption, label_colour, montage, overlay
from kshot.io.raster_options import RasterOptions
from kshot.predict.raster_supports import read_labelled
from kshot.predict.support_check import hint, own_iou
from kshot.results import OBJECT
from kshot.segmenter import MAX_CLASSES, ClassSupport, LabelledImages, Segmenter

CELL = 240
"""Pixels that the supports' picture has for its width and for its height."""

SHOWN = 16
"""Supports on their picture: the first ones."""

NAMED = 8
"""Classes whose names are below it: the first ones."""

CHECKED = 5
"""Supports of a class that are looked for in their own photographs: the first ones."""


@dataclass(frozen=True, eq=False)
class Supports:
    """Labelled photographs. classes: each class's, by name. picture: some of them, for the contact sheet."""

    classes: Mapping[str, Sequence[tuple[ImageSource, MaskSource]]]
    picture: Image.Image

    def sha256(self) -> str:
        """Digest all that a model is shown: classes' names, pixels and masks, in their order."""
        digest = hashlib.sha256()
        for name, pairs in self.classes.items():
            for image, mask in pairs:
                picture = read_image(image)
                foreground = read_mask(mask, (picture.height, picture.width), may_be_empty=True)
                digest.update(f"{name} {picture.size} ".encode())
                digest.update(picture.tobytes())
                digest.update(np.packbits(foreground).tobytes())
        return digest.hexdigest()

    def fit(self, segmenter: Segmenter) -> None:
        """Fit a model; print to stderr which class it does not find in its own support images."""
        segmenter.fit(self.classes)
        for name, pairs in self.classes.items():
            if line := _hint(segmenter, pairs, name):
                print(line, file=sys.stderr)

    def with_negatives(self, images: Sequence[Path]) -> "Supports":
        """Add photographs that show none of the classes; see `Segmenter.fit`."""
        empty = [
            (picture, np.zeros((picture.height, picture.width), bool)) for picture in map(read_image, images)
        ]
        return replace(self, classes={name: [*pairs, *empty] for name, pairs in self.classes.items()})


def read_masks(
    pairs: Sequence[tuple[Path, Path]], values: Mapping[str, int | None], view: RasterOptions
) -> Supports:
    """Read pictures, maps or scans, and masks. A picture whose mask is empty is a negative of every class.

    values: each class's value in the masks. None where there is one class, whose value the masks show.
    Raises ImageError or MaskError for what cannot be used.
    """
    values = values or {OBJECT: None}
    classes: dict[str, list[tuple[Image.Image, NDArray[np.bool_]]]] = {name: [] for name in values}
    shown = []
    for image, mask in pairs:
        for picture, masks in read_labelled(image, mask, values, view):
            empty = np.zeros((picture.height, picture.width), dtype=np.bool_)
            for name in masks or values:
                classes[name].append((picture, masks.get(name, empty)))
            shown.append(_thumbnail(picture, masks, tuple(values)))
    return Supports(classes, _arrange(shown[:SHOWN], tuple(values)))


def read_annotated(path: Path, images: Path | None, class_names: Sequence[str] | None) -> Supports:
    """Read an annotation file, or a folder; the first MAX_SUPPORTS photographs of each class.

    class_names: those to use, in this order; all of them if None. Says so where photographs are left out.
    Raises DataError, ImageError or MaskError for what cannot be used.
    """
    annotations = read_annotations(path, images)
    counts = annotations.count_images()
    chosen = annotations.select(class_names)
    if len(chosen.class_names) > MAX_CLASSES:
        raise DataError(
            f"{path} has {len(chosen.class_names)} classes, but a label map holds {MAX_CLASSES}. Name "
            "those that you want: --classes cat,dog."
        )
    for name in chosen.class_names:
        if counts[name] > MAX_SUPPORTS:
            print(f"Class '{name}' is in {counts[name]} photographs; the first {MAX_SUPPORTS} are used.")
    shown = []
    for photograph in chosen.images[:SHOWN]:
        source, masks = photograph.read()
        shown.append(_thumbnail(read_image(source), masks, chosen.class_names))
    examples = {name: list(pairs) for name, pairs in chosen.examples().items()}
    return Supports(examples, _arrange(shown, chosen.class_names))


def _hint(fitted: Segmenter, pairs: LabelledImages, name: str) -> str | None:
    """Say what to try if the first supports of a class are not found in their own photographs."""
    found = list[float]()
    for image, mask in pairs:
        picture = read_image(image)
        foreground = read_mask(mask, (picture.height, picture.width), may_be_empty=True)
        if foreground.any() and len(found) < CHECKED:
            alone = fitted.clone()
            alone.support_set = {name: ClassSupport((fitted.support_set[name].shots[len(found)],))}
            found.append(own_iou(alone, picture, foreground))
    options = ", --image-size, --tile, or --model prototype"
    if not fitted.method.needs_training:
        options = ", --image-size or --tile"
    return hint(float(np.mean(found)), f"'{name}'", other_remedies=options)


def _thumbnail(
    picture: Image.Image, masks: Mapping[str, NDArray[np.bool_]], class_names: Sequence[str]
) -> Image.Image:
    """Draw a support small. Where masks overlap the later class is shown."""
    labels = np.zeros((picture.height, picture.width), dtype=np.uint8)
    for label, name in enumerate(class_names, 1):
        if name in masks:
            labels[masks[name]] = label
    return ImageOps.contain(overlay(picture, labels), (CELL, CELL))


def _arrange(pictures: list[Image.Image], class_names: Sequence[str]) -> Image.Image:
    """Put supports together; the names and colours of several classes go below."""
    picture = montage(pictures, CELL)
    if len(class_names) > 1:
        for label, name in enumerate(class_names[:NAMED], 1):
            picture = add_caption(picture, name, label_colour(label))
    return picture
