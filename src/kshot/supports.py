"""Labelled examples for the command, from pictures of masks or from an annotation file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kshot.annotations.photographs import MAX_SUPPORTS
from kshot.annotations.read import read_annotations
from kshot.errors import DataError
from kshot.images import read_image
from kshot.pictures import captioned, label_colour, montage, overlay
from kshot.rasters.labelled import read_labelled
from kshot.rasters.view import View
from kshot.segmenter import MAX_CLASSES, LabelledImages, LabelSegmenter, Segmenter

CELL = 240
"""Pixels that the supports' picture has for its width and for its height."""

SHOWN = 16
"""Supports on their picture: the first ones."""

NAMED = 8
"""Classes whose names are below it: the first ones."""

UNNAMED = "object"
"""The class of masks that nobody named."""


@dataclass(frozen=True, eq=False)
class Supports:
    """Labelled photographs. classes: each class's, by name. picture: some of them, for the contact sheet."""

    classes: Mapping[str, LabelledImages]
    picture: Image.Image

    def fit(self, segmenter: Segmenter) -> Segmenter | LabelSegmenter:
        """Show them to a model. Of one class the answers will be masks, of several label maps."""
        fitted = segmenter.fit(self.classes)
        return fitted if len(self.classes) > 1 else next(iter(fitted.segmenters.values()))


def read_masks(pairs: Sequence[tuple[Path, Path]], values: Mapping[str, int | None], view: View) -> Supports:
    """Read pictures, maps or scans, and masks.

    values: each class's value in the masks. None where there is one class, whose value the masks show.
    Raises ImageError or MaskError for what cannot be used.
    """
    values = values or {UNNAMED: None}
    classes: dict[str, list[tuple[Image.Image, NDArray[np.bool_]]]] = {name: [] for name in values}
    shown = []
    for image, mask in pairs:
        for picture, masks in read_labelled(image, mask, values, view):
            for name, found in masks.items():
                classes[name].append((picture, found))
            shown.append(_thumbnail(picture, masks, tuple(values)))
    return Supports(classes, _arrange(shown[:SHOWN], tuple(values)))


def read_annotated(path: Path, images: Path | None, class_names: Sequence[str] | None) -> Supports:
    """Read an annotation file, or a folder; the first MAX_SUPPORTS photographs of each class.

    class_names: those to use, in this order; all of them if None. Says so where photographs are left out.
    Raises DataError, ImageError or MaskError for what cannot be used.
    """
    annotations = read_annotations(path, images)
    counts = annotations.counts()
    chosen = annotations.choose(class_names)
    if len(chosen.class_names) > MAX_CLASSES:
        raise DataError(
            f"{path} has {len(chosen.class_names)} classes, but a label map holds {MAX_CLASSES}. Name "
            "those that you want: --classes cat,dog."
        )
    for name in chosen.class_names:
        if counts[name] > MAX_SUPPORTS:
            print(f"Class '{name}' is in {counts[name]} photographs; the first {MAX_SUPPORTS} are used.")
    shown = []
    for photograph in chosen.photographs[:SHOWN]:
        source, masks = photograph.read()
        shown.append(_thumbnail(read_image(source), masks, chosen.class_names))
    return Supports(chosen.examples(), _arrange(shown, chosen.class_names))


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
            picture = captioned(picture, name, label_colour(label))
    return picture
