"""Frozen features, computed once an image and kept as long as an episode still needs them."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CACHE_GB = 4.0
"""Memory for features in GiB, unless told otherwise."""


class FeatureStore:
    """Features by image name, within a budget of memory.

    compute: makes an image's features. uses: every use to come, one entry each, so that features are dropped
    after their last. What does not fit into `budget` bytes is computed again when it is needed: correct, and
    `num_computed` tells.
    """

    def __init__(self, compute: Callable[[str], Any], uses: Iterable[str], budget: int) -> None:
        self._compute = compute
        self._uses_left = Counter(uses)
        self._kept: dict[str, Any] = {}
        self._budget = budget
        self._bytes = 0
        self.num_computed = 0

    @property
    def num_kept(self) -> int:
        """How many images' features are in memory."""
        return len(self._kept)

    def use(self, name: str) -> Any:
        """Give an image's features, for one of its uses."""
        features = self._kept.get(name)
        is_new = features is None
        if is_new:
            features = self._compute(name)
            self.num_computed += 1
        self._uses_left[name] -= 1
        size = num_bytes(features)
        if is_new and self._uses_left[name] > 0 and self._bytes + size <= self._budget:
            self._kept[name] = features
            self._bytes += size
        elif not is_new and self._uses_left[name] <= 0:
            del self._kept[name]
            self._bytes -= size
        return features


def num_bytes(features: Any) -> int:
    """Measure tensors in nested tuples, each once though it may occur twice."""
    return sum({t.data_ptr(): t.nbytes for t in _tensors(features)}.values())


def _tensors(features: Any) -> "Iterable[Tensor]":
    from torch import Tensor  # not above: the command takes CACHE_GB from here, and shall start at once

    if isinstance(features, Tensor):
        yield features
    elif isinstance(features, tuple):
        for part in features:
            yield from _tensors(part)
