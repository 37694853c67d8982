"""Summarize a prediction that is too large to keep: shares, confidence, and a thumbnail."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from kshot.results import SegmentationResult

NO_DATA = 255
"""Value of a mask or a label map where the GeoTIFF has no data."""


class Summary(NamedTuple):
    """An image and its result, both scaled down if large, and statistics of the full size.

    shares: share of the image that each class covers, 0 to 1, by name. confidence: see
    `SegmentationResult.confidence`.
    """

    image: Image.Image
    result: SegmentationResult
    shares: dict[str, float]
    confidence: float


@dataclass
class PredictionStats:
    """Adds up the classes' pixels and the confidence, part by part."""

    num_pixels: int = 0
    found: Counter[str] = field(default_factory=Counter)
    total_confidence: float = 0.0
    highest: float = 0.0

    def add(self, part: SegmentationResult) -> None:
        """Add a part."""
        counts = part.counts
        self.num_pixels += part.labels.size
        self.found.update(counts)
        self.total_confidence += part.confidence * sum(counts.values())
        self.highest = max(self.highest, part.highest_probability)

    def summary(self, image: Image.Image, result: SegmentationResult) -> Summary:
        """Return the summary of all parts, with the image and result to show."""
        shares = {name: count / self.num_pixels for name, count in self.found.items()}
        number = self.found.total()
        confidence = self.total_confidence / number if number else 1 - self.highest
        return Summary(image, result, shares, confidence)


@dataclass
class Thumbnail:
    """Every `step`-th pixel of a result that comes in strips; without data the probability is 0."""

    step: int
    top: int = 0
    kept: list[SegmentationResult] = field(default_factory=list)

    def add(self, strip: SegmentationResult) -> None:
        """Add the next rows."""
        first, rows = -self.top % self.step, len(strip.labels)
        if first < rows:
            thin = strip.thin(self.step, first)
            probabilities = np.nan_to_num(thin.class_probabilities, nan=0.0)
            self.kept.append(replace(thin, class_probabilities=probabilities))
        self.top += rows

    def whole(self) -> SegmentationResult:
        """Return all rows as one result."""
        return SegmentationResult.stack(self.kept, sum(len(strip.labels) for strip in self.kept))


@dataclass
class WholeMap:
    """Strips of a result with little memory: labels, and each pixel's probability of its own class."""

    strips: list[SegmentationResult] = field(default_factory=list)

    def add(self, strip: SegmentationResult) -> None:
        """Add the next rows."""
        own = np.zeros((1, *strip.labels.shape), np.float16)
        for value, probability in zip(strip.class_values, strip.class_probabilities, strict=True):
            own[0] = np.where(strip.labels == value, probability, own[0])
        self.strips.append(replace(strip, class_probabilities=own))

    def whole(self) -> SegmentationResult:
        """Return all rows as one result, in which all classes share the probability of the pixel's class."""
        labels = np.concatenate([strip.labels for strip in self.strips])
        own = np.concatenate([strip.class_probabilities for strip in self.strips], axis=1)
        shared = np.broadcast_to(own, (len(self.strips[0].class_names), *labels.shape))
        return replace(self.strips[0], labels=labels, class_probabilities=shared)
