"""What is shown of a map's or a scan's answer, which is too large to be shown whole."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.segmenter import Explanation, LabelExplanation

NO_DATA = 255
"""Of a mask or a label map: where the map has no data."""


class Answer(NamedTuple):
    """A picture, its answer, and what is told of it; of a map or a scan, of all of it.

    shares: how much each class covers, 0 to 1, by name. confidence: how sure the answer is, 0 to 1.
    """

    picture: Image.Image
    explanation: Explanation | LabelExplanation
    shares: dict[str, float]
    confidence: float


@dataclass
class Tally:
    """Counts what was found, part by part, and how sure it is."""

    pixels: int = 0
    found: Counter[str] = field(default_factory=Counter)
    sure: float = 0.0

    def add(self, part: Explanation | LabelExplanation) -> None:
        """Take one more part."""
        values = values_of(part)
        names = ["foreground"] if isinstance(part, Explanation) else list(part.classes)
        counts = {name: int(np.count_nonzero(values == label)) for label, name in enumerate(names, 1)}
        self.pixels += values.size
        self.found.update(counts)
        self.sure += part.confidence * sum(counts.values())

    def answer(self, picture: Image.Image, explanation: Explanation | LabelExplanation) -> Answer:
        """Tell of all parts, beside what is shown of them."""
        shares = {name: count / self.pixels for name, count in self.found.items()}
        return Answer(picture, explanation, shares, self.sure / max(1, self.found.total()))


@dataclass
class Sketch:
    """Keeps every `step`-th pixel of an answer that comes in strips."""

    step: int
    top: int = 0
    kept: list[Explanation | LabelExplanation] = field(default_factory=list)

    def add(self, strip: Explanation | LabelExplanation) -> None:
        """Take the next rows."""
        first, rows = -self.top % self.step, len(values_of(strip))
        if first < rows:
            self.kept.append(thinned(strip, first, self.step))
        self.top += rows

    def whole(self) -> Explanation | LabelExplanation:
        """Put the rows together."""
        if isinstance(self.kept[0], Explanation):
            return _stack([one for one in self.kept if isinstance(one, Explanation)])
        parts = [one for one in self.kept if isinstance(one, LabelExplanation)]
        classes = {name: _stack([one.classes[name] for one in parts]) for name in parts[0].classes}
        return LabelExplanation(np.concatenate([one.labels for one in parts]), classes)


def thinned(
    explanation: Explanation | LabelExplanation, first: int, step: int
) -> Explanation | LabelExplanation:
    """Keep every `step`-th row from `first` on, and every `step`-th column; without data it is 0."""

    def thin(one: Explanation) -> Explanation:
        fused = np.nan_to_num(one.fused[first::step, ::step], nan=0.0)
        return Explanation(one.mask[first::step, ::step].copy(), fused, None, None, None)

    if isinstance(explanation, Explanation):
        return thin(explanation)
    classes = {name: thin(one) for name, one in explanation.classes.items()}
    return LabelExplanation(explanation.labels[first::step, ::step].copy(), classes)


def values_of(explanation: Explanation | LabelExplanation) -> NDArray[np.uint8]:
    """Give 0 on the background, n on the n-th class; 1 on the object of a mask."""
    if isinstance(explanation, Explanation):
        return explanation.mask.view(np.uint8)
    return explanation.labels


def probabilities_of(explanation: Explanation | LabelExplanation) -> NDArray[np.float32]:
    """Give each class's probability, (classes, H, W)."""
    if isinstance(explanation, Explanation):
        return explanation.fused[None]
    return np.stack([one.fused for one in explanation.classes.values()])


def _stack(parts: list[Explanation]) -> Explanation:
    def stacked(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in parts])

    return Explanation(stacked("mask"), stacked("fused"), None, None, None)
