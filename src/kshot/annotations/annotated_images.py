"""Annotated images from any annotation file, located and rasterized only when they are read."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from kshot.annotations.rasterize import Mask, Size
from kshot.errors import DataError, ImageError, MaskError
from kshot.io.images import ImageSource, read_size

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

    def read(self) -> tuple[ImageSource, dict[str, Mask]]:
        """Return the image or its path, and each class's mask (H, W), the union of its shapes.

        Raises ImageError if the image is not found, MaskError if a shape cannot be drawn or is outside.
        """
        source = self.locate()
        height, width = size = read_size(source)
        if self.size is not None and self.size != size:
            raise MaskError(
                f"Image {self.name!r} is {width} x {height} pixels when upright, but was annotated as "
                f"{self.size[1]} x {self.size[0]}. Use the image that was annotated."
            )
        masks: dict[str, Mask] = {}
        for shape in self.shapes:
            try:
                mask = shape.draw(size)
            except MaskError as error:
                raise MaskError(f"Image {self.name!r}, class '{shape.class_name}': {error}") from error
            masks[shape.class_name] = masks[shape.class_name] | mask if shape.class_name in masks else mask
        for name, mask in masks.items():
            if not mask.any():
                raise MaskError(f"Image {self.name!r} shows no pixel of '{name}': its shapes are outside.")
        return source, masks


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotated images of a file or folder. class_names: the annotated classes, in the file's order."""

    class_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]

    def select(self, class_names: Sequence[str] | None = None, limit: int = MAX_SUPPORTS) -> "Annotations":
        """Return only these classes, in this order, with the first `limit` images of each.

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
            names = [name for name in image.class_names if name in wanted and taken[name] < limit]
            taken.update(names)
            if names:
                kept.append(image.only(names))
        return Annotations(wanted, tuple(kept))

    def count_images(self) -> Counter[str]:
        """Return the number of images of each class."""
        return Counter(name for image in self.images for name in image.class_names)

    def examples(self) -> dict[str, Iterator[tuple[ImageSource, Mask]]]:
        """Return each class's images with their masks, read one at a time, for `Segmenter.fit`."""
        return {name: self._examples_of(name) for name in self.class_names}

    def _examples_of(self, name: str) -> Iterator[tuple[ImageSource, Mask]]:
        for image in self.images:
            if name in image.class_names:
                source, masks = image.only([name]).read()
                yield source, masks[name]


def collect(images: Sequence[AnnotatedImage], order: Sequence[str], source: Path) -> Annotations:
    """Return the images that have shapes. order: class names in the file's order, if it defines one.

    Raises DataError if no image has a shape, or if a class name is blank or unprintable.
    """
    kept = tuple(image for image in images if image.shapes)
    found = {name for image in kept for name in image.class_names}
    if not kept:
        raise DataError(f"{source} annotates nothing: no image in it has an outline.")
    if invalid := [name for name in found if not name.strip() or not name.isprintable()]:
        raise DataError(f"{source} has a class named {min(invalid)[:40]!r}, which is no name. Rename it.")
    return Annotations(tuple(name for name in dict.fromkeys((*order, *sorted(found))) if name in found), kept)


@dataclass(frozen=True)
class ImageLocator:
    """Finds the images of an annotation file.

    folders: to which a relative path in the file may refer. recursive: the one that is searched recursively.
    """

    folders: tuple[Path, ...]
    recursive: Path

    @classmethod
    def for_file(cls, file: Path, images: Path | None) -> "ImageLocator":
        """Return a locator for the folder of an annotation file and its images/, or for `images` alone.

        Raises DataError if `images` is not a folder.
        """
        if images is None:
            return cls((file.parent, file.parent / "images"), file.parent / "images")
        if not images.is_dir():
            raise DataError(f"There is no folder {images}. Give the one that holds the images.")
        return cls((images,), images)

    def find(self, *names: str) -> Path:
        """Return the path of an image that may have several names; the first that exists.

        Of absolute paths and URLs only the last part counts. Of relative paths the folders count too, so that
        train/1.jpg never matches val/1.jpg. Raises ImageError if there is no match or more than one.
        """
        relative = [_relative(name) for name in names]
        for name in relative:
            for folder in self.folders:
                if _is_file(folder / name):
                    return folder / name
        for name in relative:
            same_name = self._by_name.get(name.rpartition("/")[2], [])
            found = [path for path in same_name if path.as_posix().endswith(f"/{name}")]
            if len(found) > 1:
                raise ImageError(f"Image {name!r} may be {found[0]} or {found[1]}. Keep one of them.")
            if found:
                return found[0]
        searched = " or ".join(map(str, self.folders))
        raise ImageError(
            f"Image {relative[0]!r} is not in {searched}. Name its folder: --support-images DIR."
        )

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in sorted(self.recursive.rglob("*")):
            found[path.name].append(path)
        return dict(found)


def _relative(name: str) -> str:
    name = name.replace("\\", "/")
    return name.rpartition("/")[2] if name.startswith("/") or ":" in name else name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or has a null byte
        return False
