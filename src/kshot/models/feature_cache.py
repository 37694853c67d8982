"""Cache of frozen features: those of each image are computed once and stored while they fit into a budget.

Evaluation stores them in memory; training on disk, in `training.feature_files`.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Key = TypeVar("Key", bound=Hashable)
StoredKey = TypeVar("StoredKey", contravariant=True)

CACHE_GB = 4.0
"""Default memory for features in GiB."""


class Budget:
    """Number of bytes that one or several storages may still take."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, size: int) -> bool:
        """Take a size from the budget; return False if it does not fit."""
        if size > self.left:
            return False
        self.left -= size
        return True


class Storage(Protocol[StoredKey]):
    """Where a cache stores features."""

    def read(self, key: StoredKey) -> Any:
        """Return stored features, or None. Called once for each use."""

    def write(self, key: StoredKey, features: Any) -> Any:
        """Store features if they fit; return them as `read` will."""


class FeatureCache(Generic[Key]):
    """Features by key. compute: returns those of a key; `num_computed` counts its calls."""

    def __init__(self, compute: Callable[[Key], Any], storage: Storage[Key]) -> None:
        self.num_computed = 0
        self._compute, self._storage = compute, storage

    def get(self, key: Key) -> Any:
        """Return features: from the storage, or computed."""
        features = self._storage.read(key)
        if features is None:
            features = self._storage.write(key, self._compute(key))
            self.num_computed += 1
        return features


class MemoryStorage(Generic[Key]):
    """Features in memory, nested tuples of tensors, until their last use.

    uses: the keys of all uses to come, one entry for each use.
    """

    def __init__(self, uses: Iterable[Key], budget: Budget) -> None:
        self._uses_left = Counter(uses)
        self._stored: dict[Key, Any] = {}
        self._budget = budget

    def __len__(self) -> int:
        return len(self._stored)

    def read(self, key: Key) -> Any:
        """Return stored features, or None; after the last use they are dropped."""
        self._uses_left[key] -= 1
        features = self._stored.get(key)
        if features is not None and self._uses_left[key] <= 0:
            del self._stored[key]
            self._budget.left += num_bytes(features)
        return features

    def write(self, key: Key, features: Any) -> Any:
        """Store features that will be used again, if they fit; return them."""
        if self._uses_left[key] > 0 and self._budget.take(num_bytes(features)):
            self._stored[key] = features
        return features


def num_bytes(features: Any) -> int:
    """Return the bytes of the tensors in nested tuples; a tensor that occurs twice counts once."""
    return sum({t.data_ptr(): t.nbytes for t in _tensors(features)}.values())


def _tensors(features: Any) -> "Iterable[Tensor]":
    from torch import Tensor  # here, because the command imports CACHE_GB, and torch takes seconds to import

    if isinstance(features, Tensor):
        yield features
    elif isinstance(features, tuple):
        for part in features:
            yield from _tensors(part)
