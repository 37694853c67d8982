"""What a segmenter found in an image: mask, labels, probabilities, instances, and pictures of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.annotations.components import MIN_COMPONENT, connected_components, outline
from kshot.io.files import save_image
from kshot.io.images import ImageSource, read_image
from kshot.io.overlays import label_image, mask_image, overlay
from kshot.types import IGNORE_INDEX, FloatMap

OBJECT = "object"
"""Name of a class that was given without a name."""

MAX_CLASSES = IGNORE_INDEX - 1
"""Largest number of classes in a label map, where 0 is the background and 255 means "ignore"."""


@dataclass(frozen=True, eq=False)
class Instance:
    """A connected part of a class's mask.

    box: left, top, right and bottom in pixels, the last two exclusive. area: pixels. score: mean probability
    in [0, 1]. mask: bool, inside the box only. polygon: outline as (x, y) pixels; None if the part has holes
    or is too thin for one polygon.
    """

    class_name: str
    box: tuple[int, int, int, int]
    area: int
    score: float
    mask: NDArray[np.bool_]
    polygon: list[tuple[int, int]] | None


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """The segmentation of an image (H, W) into background and C classes; `np.asarray` returns mask or labels.

    labels: uint8 (H, W), 0 on the background, n on the n-th class. class_probabilities: float32 (C, H, W) in
    [0, 1], each class against everything else; NaN where a map has no data. first_pass, second_pass,
    base_map: the probability after each pass, and that of a base class, (H, W) each, or (C, H, W) for several
    classes; None where the method has no such step, or the image was segmented in tiles. source: the image,
    as given.
    """

    labels: NDArray[np.uint8]
    class_probabilities: FloatMap
    class_names: tuple[str, ...] = (OBJECT,)
    first_pass: FloatMap | None = None
    second_pass: FloatMap | None = None
    base_map: FloatMap | None = None
    source: ImageSource | None = None

    @classmethod
    def of_one_class(
        cls, mask: NDArray[np.bool_], probability: FloatMap, name: str = OBJECT, **steps: FloatMap | None
    ) -> Self:
        """Make the result of one class from its mask (H, W) and its probability (H, W)."""
        return cls(mask.astype(np.uint8), probability[None], (name,), **steps)

    @classmethod
    def merge(cls, by_class: Mapping[str, "SegmentationResult"]) -> Self:
        """Merge results of single classes: each pixel goes to the likeliest class whose mask holds it.

        Of equal probabilities the first class wins. Raises ValueError without classes.
        """
        each = list(by_class.values())
        if not each:
            raise ValueError("There is no class to merge.")
        shown = np.stack([np.where(one.mask, one.class_probabilities[0], -1) for one in each])
        labels = np.where((shown >= 0).any(axis=0), shown.argmax(axis=0) + 1, 0).astype(np.uint8)
        probabilities = np.concatenate([one.class_probabilities for one in each])

        def stacked(step: str) -> FloatMap | None:
            maps = [getattr(one, step) for one in each]
            return None if any(one is None for one in maps) else np.stack(maps)

        steps = {step: stacked(step) for step in ("first_pass", "second_pass", "base_map")}
        return cls(labels, probabilities, tuple(by_class), **steps)

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
        return cls(labels, probabilities, first.class_names)

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
        return {n: int(np.count_nonzero(self.labels == label)) for label, n in enumerate(self.class_names, 1)}

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
            own = np.concatenate([p[self.labels == n] for n, p in enumerate(self.class_probabilities, 1)])
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
        own = (self.labels == place + 1).astype(np.uint8)

        def picked(step: FloatMap | None) -> FloatMap | None:
            return step if step is None or step.ndim == 2 else step[place]

        steps = map(picked, (self.first_pass, self.second_pass, self.base_map))
        return SegmentationResult(own, self.class_probabilities[place : place + 1], (name,), *steps)

    def thin(self, step: int, first: int = 0) -> "SegmentationResult":
        """Return every `step`-th row, from the row `first` on, and every `step`-th column."""
        probabilities = self.class_probabilities[:, first::step, ::step].copy()
        return SegmentationResult(self.labels[first::step, ::step].copy(), probabilities, self.class_names)

    def instances(self, min_area: int = MIN_COMPONENT) -> list[Instance]:
        """Return the connected parts of each class's mask, but for those of fewer than `min_area` pixels.

        Raises KshotError if scikit-image is not installed.
        """
        found = []
        for name in self.class_names:
            own = self.of_class(name)
            for part in connected_components(own.mask, own.class_probabilities[0], min_area):
                left, top, width, height = part.box
                box = left, top, left + width, top + height
                found.append(Instance(name, box, part.area, part.score, part.mask, outline(part)))
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
