"""Frozen features, computed once an image and kept as long as an episode still needs them."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Key = TypeVar("Key", bound=Hashable)

CACHE_GB = 4.0
"""Memory for features in GiB, unless told otherwise."""


class FeatureStore(Generic[Key]):
    """Features by an image's name or whatever else tells it apart, within a budget of memory.

    compute: makes an image's features. uses: every use to come, one entry each, so that features are dropped
    after their last. What does not fit into `budget` bytes is computed again when it is needed: correct, and
    `num_computed` tells.
    """

    def __init__(self, compute: Callable[[Key], Any], uses: Iterable[Key], budget: int) -> None:
        self._compute = compute
        self._uses_left = Counter(uses)
        self._kept: dict[Key, Any] = {}
        self._budget = budget
        self._bytes = 0
        self.num_computed = 0

    @property
    def num_kept(self) -> int:
        """How many images' features are in memory."""
        return len(self._kept)

    def use(self, key: Key) -> Any:
        """Give an image's features, for one of its uses."""
        features = self._kept.get(key)
        is_new = features is None
        if is_new:
            features = self._compute(key)
            self.num_computed += 1
        self._uses_left[key] -= 1
        size = num_bytes(features)
        if is_new and self._uses_left[key] > 0 and self._bytes + size <= self._budget:
            self._kept[key] = features
            self._bytes += size
        elif not is_new and self._uses_left[key] <= 0:
            del self._kept[key]
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
