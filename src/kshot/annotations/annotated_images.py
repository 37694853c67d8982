"""Annotated images from any annotation file, located and rasterized only when they are read."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kshot.annotations.rasterize import Mask, Size
from kshot.annotations.summary import Omissions, Summary
from kshot.errors import DataError, ImageError, KshotError, MaskError
from kshot.io.images import ImageSource, read_image, read_size

logger = logging.getLogger(__name__)

MAX_WARNINGS = 5
"""Images and objects that cannot be used and are named at once; all are counted in the summary."""

MAX_SUPPORTS = 20
"""Images used per class: more make each query slower and hardly improve its mask."""


@dataclass(frozen=True, eq=False)
class Shape:
    """One annotated object. draw: returns its mask for an image size, or raises MaskError."""

    class_name: str
    draw: Callable[[Size], Mask]


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image and its annotated shapes.

    name, size: as in the annotation file; size is None if the file has none. locate: returns the image or
    its path, or raises ImageError that names the searched folders.
    """

    name: str
    locate: Callable[[], ImageSource]
    size: Size | None
    shapes: tuple[Shape, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the annotated classes."""
        return tuple(dict.fromkeys(shape.class_name for shape in self.shapes))

    def only(self, class_names: Sequence[str]) -> "AnnotatedImage":
        """Return a copy with only these classes."""
        return replace(self, shapes=tuple(shape for shape in self.shapes if shape.class_name in class_names))

    def read(self, omissions: Omissions | None = None) -> tuple[ImageSource, dict[str, Mask]]:
        """Return the image or its path, and each class's mask (H, W), the union of its shapes.

        omissions: counts the shapes that cannot be drawn and the classes that show no pixel; without it,
        they are errors. Raises ImageError if the image is not found, MaskError if it has another size, if a
        shape cannot be drawn, or if nothing is left.
        """
        source = self.locate()
        if omissions is not None:
            read_image(source)  # finds damage now, while the image can still be passed over
        height, width = size = read_size(source)
        if self.size is not None and self.size != size:
            raise MaskError(
                f"Image {self.name!r} is {width} x {height} pixels when upright, but was annotated as "
                f"{self.size[1]} x {self.size[0]}. Use the image that was annotated."
            )
        masks, faults = self._draw(size)
        if faults and (omissions is None or not masks):
            raise faults[0]
        if omissions is not None:
            for fault in faults:
                _pass_over("object", fault, omissions)
        return source, masks

    def _draw(self, size: Size) -> tuple[dict[str, Mask], list[MaskError]]:
        """Return the masks of the classes that show a pixel, and what is wrong with the other shapes."""
        masks: dict[str, Mask] = {}
        faults = list[MaskError]()
        for shape in self.shapes:
            name = shape.class_name
            try:
                mask = shape.draw(size)
            except MaskError as error:
                faults.append(MaskError(f"Image {self.name!r}, class '{name}': {error}"))
            else:
                masks[name] = masks[name] | mask if name in masks else mask
        empty = [name for name, mask in masks.items() if not mask.any()]
        faults += [
            MaskError(f"Image {self.name!r} shows no pixel of '{name}': its shapes are outside or too small.")
            for name in empty
        ]
        return {name: mask for name, mask in masks.items() if name not in empty}, faults


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotated images of a file or folder.

    class_names: the annotated classes, in the file's order. summary: what the whole file holds, and what was
    left out.
    """

    class_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    summary: Summary

    def select(
        self, class_names: Sequence[str] | None = None, limit: int | None = MAX_SUPPORTS
    ) -> "Annotations":
        """Return only these classes, in this order, with the first `limit` images of each; None: all.

        Raises DataError for a class that is not annotated.
        """
        wanted = self.class_names if class_names is None else tuple(class_names)
        if unknown := [name for name in wanted if name not in self.class_names]:
            raise DataError(
                f"Class '{unknown[0]}' is not annotated. Annotated are: {', '.join(self.class_names)}."
            )
        taken: Counter[str] = Counter()
        kept = []
        for image in self.images:
            names = [n for n in image.class_names if n in wanted and (limit is None or taken[n] < limit)]
            taken.update(names)
            if names:
                kept.append(image.only(names))
        return replace(self, class_names=wanted, images=tuple(kept))

    def count_images(self) -> Counter[str]:
        """Return the number of images of each class."""
        return Counter(name for image in self.images for name in image.class_names)

    def read(
        self, omissions: Omissions, limit: int | None = None
    ) -> Iterator[tuple[ImageSource, dict[str, Mask]]]:
        """Yield the images and their masks, until each class has `limit` of them.

        What cannot be used is logged and counted in `omissions`. Raises the first such error if it leaves
        nothing to yield.
        """
        taken: Counter[str] = Counter()
        first_error: KshotError | None = None
        for image in self.images:
            names = [name for name in image.class_names if limit is None or taken[name] < limit]
            if not names:
                continue
            try:
                source, masks = image.only(names).read(omissions)
            except (ImageError, MaskError) as error:
                first_error = first_error or error
                _pass_over("image", error, omissions)
                continue
            taken.update(masks.keys())
            yield source, masks
        if first_error and not taken:
            raise first_error

    def examples(self) -> dict[str, Iterator[tuple[ImageSource, Mask]]]:
        """Return each class's images with their masks, read one at a time, for `Segmenter.fit`.

        An image that cannot be used is passed over with a warning; it is an error if a class has no other.
        """
        return {name: self._examples_of(name) for name in self.class_names}

    def _examples_of(self, name: str) -> Iterator[tuple[ImageSource, Mask]]:
        for source, masks in self.select([name], limit=None).read(Omissions()):
            yield source, masks[name]


def collect(
    images: Sequence[AnnotatedImage],
    order: Sequence[str],
    source: Path,
    omissions: Omissions | None = None,
    notes: Sequence[str] = (),
) -> Annotations:
    """Return the images that have shapes, and the summary of what was read.

    order: class names in the file's order, if it defines one. omissions: what the reader left out.
    Raises DataError if no image has a shape.
    """
    omissions = omissions or Omissions()
    named = [_with_names(image, omissions) for image in images]
    kept = tuple(image for image in named if image.shapes)
    omissions.add_all("image", "without objects", (image.name for image in named if not image.shapes))
    found = {name for image in kept for name in image.class_names}
    omissions.add_all(
        "class", "without objects", (name for name in dict.fromkeys(order) if name not in found)
    )
    class_names = tuple(name for name in dict.fromkeys((*order, *sorted(found))) if name in found)
    num_shapes = sum(len(image.shapes) for image in kept)
    summary = Summary(len(kept), num_shapes, len(class_names), omissions.left_out(), tuple(notes))
    if not kept:
        left_out = "; ".join(f"{kind} ({', '.join(kind.examples[:1])})" for kind in summary.left_out)
        raise DataError(
            f"{source} annotates nothing: no image in it has an outline that covers an area. Export polygons "
            f"or masks. Left out: {left_out or 'nothing'}."
        )
    return Annotations(class_names, kept, summary)


def _with_names(image: AnnotatedImage, omissions: Omissions) -> AnnotatedImage:
    """Return an image without the shapes whose class has no name that can be printed."""
    invalid = [name for name in image.class_names if not name.strip() or not name.isprintable()]
    for shape in image.shapes:
        if shape.class_name in invalid:
            omissions.add("object", "whose class has no name", f"{image.name}: {shape.class_name[:40]!r}")
    return image.only([name for name in image.class_names if name not in invalid]) if invalid else image


def _pass_over(noun: str, error: KshotError, omissions: Omissions) -> None:
    """Count what cannot be used, and log why: the first ones as warnings."""
    why = "that cannot be used"
    omissions.add(noun, why, str(error))
    is_shown = omissions.counts[noun, why] <= MAX_WARNINGS
    logger.log(logging.WARNING if is_shown else logging.DEBUG, f"Left out: {error}")
