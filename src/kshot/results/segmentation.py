"""What a segmenter found in an image: mask, labels, probabilities, instances, and pictures of them."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.io.files import save_image
from kshot.io.images import ImageSource, read_image
from kshot.io.overlays import label_image, mask_image, overlay
from kshot.results.instances import MIN_COMPONENT, TOLERANCE, Instance, InstanceOptions, find_parts
from kshot.types import IGNORE_INDEX, FloatMap

logger = logging.getLogger(__name__)

OBJECT = "object"
"""Name of a class that was given without a name."""

MAX_CLASSES = IGNORE_INDEX - 1
"""Largest number of classes in a label map, where 0 is the background and 255 means "ignore"."""


def choose_label_values(given: Mapping[str, int | None]) -> dict[str, int]:
    """Return the value of each class in label maps: as given, or 1, 2, … for one class or without values.

    Values that do not fit into the 8 bits of a label map are replaced by 1, 2, … too, with a warning.
    """
    values = [value for value in given.values() if value is not None]
    numbered = {name: number for number, name in enumerate(given, 1)}
    if len(given) < 2 or len(values) < len(given):
        return numbered
    if not all(1 <= value <= MAX_CLASSES for value in values):
        classes = ", ".join(f"{name}={number}" for name, number in numbered.items())
        logger.warning(
            f"Label maps hold the values 1 to {MAX_CLASSES}, so results cannot keep {max(values)}: {classes}."
        )
        return numbered
    return dict(zip(given, values, strict=True))


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """The segmentation of an image (H, W) into background and C classes; `np.asarray` returns mask or labels.

    labels: uint8 (H, W), 0 on the background, the class's value elsewhere. class_probabilities: float32
    (C, H, W) in [0, 1], each class against everything else; NaN where a map has no data. first_pass,
    second_pass, base_map: the probability after each pass, and that of a base class, (H, W) each, or
    (C, H, W) for several classes; None where the method has no such step, or the image was segmented in
    tiles. source: the image, as given. class_values: of the classes in `labels`, in the order of
    class_names; 1, 2, … if none are given.
    """

    labels: NDArray[np.uint8]
    class_probabilities: FloatMap
    class_names: tuple[str, ...] = (OBJECT,)
    first_pass: FloatMap | None = None
    second_pass: FloatMap | None = None
    base_map: FloatMap | None = None
    source: ImageSource | None = None
    class_values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.class_values:
            object.__setattr__(self, "class_values", tuple(range(1, len(self.class_names) + 1)))

    @classmethod
    def of_one_class(
        cls, mask: NDArray[np.bool_], probability: FloatMap, name: str = OBJECT, **steps: Any
    ) -> Self:
        """Make the result of one class from its mask (H, W) and its probability (H, W)."""
        return cls(mask.astype(np.uint8), probability[None], (name,), **steps)

    @classmethod
    def merge(
        cls, by_class: Mapping[str, "SegmentationResult"], class_values: Mapping[str, int] | None = None
    ) -> Self:
        """Merge results of single classes: each pixel goes to the likeliest class whose mask holds it.

        Of equal probabilities the first class wins. class_values: in the labels; by default 1, 2, …
        Raises ValueError without classes.
        """
        each = list(by_class.values())
        if not each:
            raise ValueError("There is no class to merge.")
        shown = np.stack([np.where(one.mask, one.class_probabilities[0], -1) for one in each])
        given = class_values or {}
        values = np.array([given.get(name, n) for n, name in enumerate(by_class, 1)], np.uint8)
        labels = np.where((shown >= 0).any(axis=0), values[shown.argmax(axis=0)], 0).astype(np.uint8)
        probabilities = np.concatenate([one.class_probabilities for one in each])

        def stacked(step: str) -> FloatMap | None:
            maps = [getattr(one, step) for one in each]
            return None if any(one is None for one in maps) else np.stack(maps)

        steps: dict[str, Any] = {step: stacked(step) for step in ("first_pass", "second_pass", "base_map")}
        return cls(labels, probabilities, tuple(by_class), class_values=tuple(values.tolist()), **steps)

    @classmethod
    def stack(cls, strips: Iterable["SegmentationResult"], height: int) -> "SegmentationResult":
        """Put strips of an image together, from the top down, as they come; several strips lose their steps.

        height: of the image, in pixels.
        """
        remaining = iter(strips)
        first = next(remaining)
        if len(first.labels) == height:
            return first
        classes, _, width = first.class_probabilities.shape
        # Filled strip by strip: to collect all strips of a large image first would take twice the memory.
        labels = np.empty((height, width), np.uint8)
        probabilities = np.empty((classes, height, width), np.float32)
        top = 0
        for strip in chain([first], remaining):
            rows = slice(top, top + len(strip.labels))
            labels[rows], probabilities[:, rows] = strip.labels, strip.class_probabilities
            top = rows.stop
        return cls(labels, probabilities, first.class_names, class_values=first.class_values)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where any class was found: bool (H, W)."""
        return self.labels > 0

    @property
    def probability(self) -> FloatMap:
        """Probability of the object (H, W), or of background and classes (1 + C, H, W), which sum to 1.

        Several classes: each one's odds against everything else, beside odds of 1 for the background.
        """
        if len(self.class_names) == 1:
            one: FloatMap = self.class_probabilities[0]
            return one
        likely = self.class_probabilities.clip(1e-6, 1 - 1e-6)
        odds = likely / (1 - likely)
        total = 1 + odds.sum(axis=0)
        together: FloatMap = np.concatenate([1 / total[None], odds / total]).astype(np.float32)
        return together

    @property
    def counts(self) -> dict[str, int]:
        """Number of pixels of each class."""
        # Not by bincount, which takes eight bytes for each pixel.
        return {
            name: int(np.count_nonzero(self.labels == value))
            for name, value in zip(self.class_names, self.class_values, strict=True)
        }

    @property
    def shares(self) -> dict[str, float]:
        """Part of the image that each class covers, 0 to 1."""
        return {name: count / self.labels.size for name, count in self.counts.items()}

    @property
    def confidence(self) -> float:
        """Mean probability of the labelled pixels, each by its own class, in [0, 1].

        If nothing was found, how sure that is: 1 minus the highest probability of any pixel. It ranks
        results, so that a person sees the worst first; it does not estimate the IoU.
        """
        if not self.mask.any():
            return 1 - self.highest_probability
        if len(self.class_names) == 1:
            own = self.class_probabilities[0][self.mask]
        else:
            maps = zip(self.class_values, self.class_probabilities, strict=True)
            own = np.concatenate([probability[self.labels == value] for value, probability in maps])
        return float(own.mean())

    @property
    def highest_probability(self) -> float:
        """Highest probability of any pixel and class; 1 where there are no data at all."""
        highest = float(np.fmax.reduce(self.class_probabilities, axis=None))
        return 1.0 if np.isnan(highest) else highest

    def of_class(self, name: str) -> "SegmentationResult":
        """Return the result of one class alone. Raises KeyError for a class that is not there."""
        if name not in self.class_names:
            raise KeyError(f"There is no class '{name}', but {', '.join(self.class_names)}.")
        place = self.class_names.index(name)
        own = (self.labels == self.class_values[place]).astype(np.uint8)

        def picked(step: FloatMap | None) -> FloatMap | None:
            return step if step is None or step.ndim == 2 else step[place]

        first, second, base = map(picked, (self.first_pass, self.second_pass, self.base_map))
        return SegmentationResult(
            own, self.class_probabilities[place : place + 1], (name,), first, second, base
        )

    def thin(self, step: int, first: int = 0) -> "SegmentationResult":
        """Return every `step`-th row, from the row `first` on, and every `step`-th column."""
        probabilities = self.class_probabilities[:, first::step, ::step].copy()
        labels = self.labels[first::step, ::step].copy()
        return SegmentationResult(labels, probabilities, self.class_names, class_values=self.class_values)

    def instances(
        self, min_area: int = MIN_COMPONENT, *, split: bool = False, tolerance: float = TOLERANCE
    ) -> list[Instance]:
        """Return the connected parts of each class's mask, but for those of fewer than `min_area` pixels.

        split: cut touching items apart where they are joined by a neck. tolerance: pixels by which polygons
        may deviate from the outline. Raises KshotError if scikit-image is not installed.
        """
        options = InstanceOptions(min_area=min_area, split=split, tolerance=tolerance)
        found: list[Instance] = []
        classes = zip(self.class_names, self.class_values, self.class_probabilities, strict=True)
        for name, value, probability in classes:
            for (rows, columns), piece in find_parts(self.labels == value, options):
                box = columns.start, rows.start, columns.stop, rows.stop
                area = int(np.count_nonzero(piece))
                score = float(probability[rows, columns][piece].mean(dtype=np.float64))
                found.append(Instance(name, box, area, score, piece, len(found) + 1, tolerance))
        return found

    def plot(self, image: ImageSource | None = None) -> Image.Image:
        """Draw what was found over the image, by default the one that was segmented."""
        source = self.source if image is None else image
        if source is None:
            raise ValueError("The result does not know its image: give it, plot(image).")
        return overlay(read_image(source), self.labels)

    def save(self, path: str | Path) -> None:
        """Write the mask (0 and 255), or the labels in a palette image, as a PNG."""
        drawn = mask_image(self.mask) if len(self.class_names) == 1 else label_image(self.labels)
        save_image(drawn, Path(path))

    def named(self, name: str) -> "SegmentationResult":
        """Return the result of one class under another name."""
        return replace(self, class_names=(name,))

    def with_source(self, source: ImageSource) -> "SegmentationResult":
        """Return the result with the image that it is of."""
        return replace(self, source=source)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the mask of one class, or the labels of several."""
        return np.asarray(self.mask if len(self.class_names) == 1 else self.labels, dtype=dtype)

    def __repr__(self) -> str:
        height, width = self.labels.shape
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.shares.items())
        found = shares if self.mask.any() else "nothing found"
        return f"SegmentationResult({width} x {height}: {found}; confidence {self.confidence:.2f})"
