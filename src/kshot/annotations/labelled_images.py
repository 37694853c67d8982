"""Annotated photographs, whatever file they come from: found and rasterised only when they are read."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from kshot.annotations.rasterize import Mask, Size
from kshot.errors import DataError, ImageError, MaskError
from kshot.io.images import ImageSource, read_size

MAX_SUPPORTS = 20
"""Photographs of a class that are used; with more, each query takes longer and is hardly answered better."""


@dataclass(frozen=True, eq=False)
class Shape:
    """One thing that is annotated. draw: gives its mask in a picture of a size, or raises MaskError."""

    class_name: str
    draw: Callable[[Size], Mask]


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph and what is annotated in it.

    name, size: as the annotations say; not all do. find: gives the picture, or raises ImageError that says
    where it was looked for.
    """

    name: str
    find: Callable[[], ImageSource]
    size: Size | None
    shapes: tuple[Shape, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name the classes that are annotated."""
        return tuple(dict.fromkeys(shape.class_name for shape in self.shapes))

    def only(self, class_names: Sequence[str]) -> "Photograph":
        """Give the photograph with some of its classes."""
        return replace(self, shapes=tuple(shape for shape in self.shapes if shape.class_name in class_names))

    def read(self) -> tuple[ImageSource, dict[str, Mask]]:
        """Give the picture, or its path, and each class's mask (H, W): the union of its shapes.

        Raises ImageError for a photograph that is not there, MaskError for shapes that cannot be drawn.
        """
        source = self.find()
        height, width = size = read_size(source)
        if self.size is not None and self.size != size:
            raise MaskError(
                f"Photograph {self.name!r} is {width} x {height} pixels when upright, but was annotated as "
                f"{self.size[1]} x {self.size[0]}. Give the very photograph that was annotated."
            )
        masks: dict[str, Mask] = {}
        for shape in self.shapes:
            try:
                mask = shape.draw(size)
            except MaskError as error:
                raise MaskError(f"Photograph {self.name!r}, class '{shape.class_name}': {error}") from error
            masks[shape.class_name] = masks[shape.class_name] | mask if shape.class_name in masks else mask
        for name, mask in masks.items():
            if not mask.any():
                raise MaskError(f"Photograph {self.name!r} shows no pixel of '{name}': it is outside.")
        return source, masks


@dataclass(frozen=True, eq=False)
class Annotations:
    """What an annotation file says. class_names: those that it shows, in its order."""

    class_names: tuple[str, ...]
    photographs: tuple[Photograph, ...]

    def choose(self, class_names: Sequence[str] | None = None, most: int = MAX_SUPPORTS) -> "Annotations":
        """Keep some classes, in this order, and the first `most` photographs of each.

        Raises DataError for a class that is not annotated.
        """
        wanted = self.class_names if class_names is None else tuple(class_names)
        if unknown := [name for name in wanted if name not in self.class_names]:
            raise DataError(
                f"Class '{unknown[0]}' is not annotated. Annotated are: {', '.join(self.class_names)}."
            )
        taken: Counter[str] = Counter()
        kept = []
        for photograph in self.photographs:
            names = [name for name in photograph.class_names if name in wanted and taken[name] < most]
            taken.update(names)
            if names:
                kept.append(photograph.only(names))
        return Annotations(wanted, tuple(kept))

    def counts(self) -> Counter[str]:
        """Count each class's photographs."""
        return Counter(name for photograph in self.photographs for name in photograph.class_names)

    def examples(self) -> dict[str, Iterator[tuple[ImageSource, Mask]]]:
        """Give each class's photographs with their masks, for `Segmenter.fit`, read one at a time."""
        return {name: self._examples_of(name) for name in self.class_names}

    def _examples_of(self, name: str) -> Iterator[tuple[ImageSource, Mask]]:
        for photograph in self.photographs:
            if name in photograph.class_names:
                source, masks = photograph.only([name]).read()
                yield source, masks[name]


def gather(photographs: Sequence[Photograph], order: Sequence[str], source: Path) -> Annotations:
    """Keep the photographs that show something. order: all names in the file's own order, if it has one.

    Raises DataError if none does.
    """
    kept = tuple(photograph for photograph in photographs if photograph.shapes)
    shown = {name for photograph in kept for name in photograph.class_names}
    if not kept:
        raise DataError(f"{source} annotates nothing: no photograph in it has an outline.")
    if unnamed := [name for name in shown if not name.strip() or not name.isprintable()]:
        raise DataError(f"{source} has a class named {min(unnamed)[:40]!r}, which is no name. Rename it.")
    return Annotations(tuple(name for name in dict.fromkeys((*order, *sorted(shown))) if name in shown), kept)


@dataclass(frozen=True)
class Pictures:
    """Where the photographs of an annotation file are looked for.

    places: folders in which a name may be a path. deep: of them, those that are searched to their depths.
    """

    places: tuple[Path, ...]
    deep: Path

    @classmethod
    def of(cls, file: Path, images: Path | None) -> "Pictures":
        """Look beside an annotation file and in images/ there, or in the folder `images` alone.

        Raises DataError if that is no folder.
        """
        if images is None:
            return cls((file.parent, file.parent / "images"), file.parent / "images")
        if not images.is_dir():
            raise DataError(f"There is no folder {images}. Give the one that holds the photographs.")
        return cls((images,), images)

    def find(self, *names: str) -> Path:
        """Give the place of a photograph that may have several names; the first that exists.

        Of absolute paths and addresses only the last part counts; of relative paths the folders count too, so
        that train/1.jpg is never taken for val/1.jpg. Raises ImageError if there is none, or if several could
        be meant.
        """
        relative = [_relative(name) for name in names]
        for name in relative:
            for place in self.places:
                if _is_file(place / name):
                    return place / name
        for name in relative:
            same_name = self._by_name.get(name.rpartition("/")[2], [])
            found = [path for path in same_name if path.as_posix().endswith(f"/{name}")]
            if len(found) > 1:
                raise ImageError(f"Photograph {name!r} may be {found[0]} or {found[1]}. Keep one of them.")
            if found:
                return found[0]
        looked = " or ".join(map(str, self.places))
        raise ImageError(
            f"Photograph {relative[0]!r} is not in {looked}. Say where it is: --support-images DIR."
        )

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in sorted(self.deep.rglob("*")):
            found[path.name].append(path)
        return dict(found)


def _relative(name: str) -> str:
    name = name.replace("\\", "/")
    return name.rpartition("/")[2] if name.startswith("/") or ":" in name else name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return False
