"""Draw episodes by name: the query and its supports. The same arguments always give the same episodes.

HSNet's rule draws from numpy's `RandomState`, whose stream is frozen. The other rules draw each episode from
digests of (seed, index), which no library can change. Episodes are drawn before any file is read, so workers
and reading order cannot change a benchmark.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from kshot.errors import DataError

T = TypeVar("T")
Rule = Literal["hsnet", "image-list", "balanced"]


class Episode(NamedTuple):
    """One query and its supports, by name. class_id counts from 0 within the benchmark."""

    class_id: int
    query: str
    supports: tuple[str, ...]

    @property
    def image_names(self) -> tuple[str, ...]:
        """Names of the images, the query first."""
        return (self.query, *self.supports)


@dataclass(frozen=True)
class Fold:
    """The (image, class id) pairs that a fold's episodes are drawn from.

    images: each class's images, in the benchmark's order. queries: all pairs, in the benchmark's order of
    queries. class_first: HSNet's rule draws the class before the query (COCO-20i).
    """

    benchmark: str
    split: str
    number: int
    class_names: tuple[str, ...]
    images: dict[int, tuple[str, ...]]
    queries: tuple[tuple[str, int], ...]
    class_first: bool = False

    def keep(self, names: Iterable[str]) -> "Fold":
        """Return the part of the fold whose images are among `names`."""
        kept = set(names)
        images = {c: tuple(n for n in found if n in kept) for c, found in self.images.items()}
        return replace(self, images=images, queries=tuple(q for q in self.queries if q[0] in kept))

    def only(self, class_ids: Iterable[int]) -> "Fold":
        """Return the part of the fold with some of its classes."""
        kept = set(class_ids)
        images = {c: found for c, found in self.images.items() if c in kept}
        return replace(self, images=images, queries=tuple(q for q in self.queries if q[1] in kept))

    def too_small(self, shots: int) -> dict[str, int]:
        """Return the classes with too few images for an episode: names, and numbers of images."""
        return {self.class_names[c]: len(n) for c, n in self.images.items() if len(n) < shots + 1}

    def large_enough(self, shots: int) -> "Fold":
        """Return the part of the fold whose classes have enough images for an episode."""
        return self.only(c for c, images in self.images.items() if len(images) > shots)


def needed_images(shots: int) -> str:
    """Return the words for how many images of a class an episode needs."""
    return f"{shots}-shot episodes need {shots + 1} ({shots} support{'s' * (shots > 1)} + 1 query)"


def draw_episodes(fold: Fold, rule: Rule, shots: int, count: int, seed: int) -> list[Episode]:
    """Draw `count` episodes of `shots` supports each by a protocol's rule.

    Raises DataError if shots, count or seed are out of range, or a class has too few images.
    """
    _check(fold, shots, count, seed)
    if rule == "hsnet":
        return _draw_hsnet(fold, shots, count, seed)
    if rule == "balanced":
        return [balanced_episode(fold, shots, seed, index) for index in range(count)]
    queries = _classes_by_image(fold)
    return [_image_list_episode(fold, queries, shots, seed, index) for index in range(count)]


def balanced_episode(fold: Fold, shots: int, seed: int, index: int) -> Episode:
    """Draw one episode: classes in turn, each image a query equally often, different supports."""
    class_ids = tuple(fold.images)
    turn, class_index = divmod(index, len(class_ids))
    class_id = class_ids[class_index]
    images = fold.images[class_id]
    cycle, position = divmod(turn, len(images))
    query = images[_order(len(images), seed, class_id, cycle)[position]]
    return Episode(class_id, query, _different(images, query, shots, seed, index))


def training_episode(fold: Fold, shots: int, seed: int, index: int, class_cap: int | None = None) -> Episode:
    """Draw one training episode: a class's weight is its number of images, up to `class_cap`.

    Without a cap, three quarters of VOC's episodes would be cats, dogs and persons. With equal weights, the
    training would overfit classes of few images.
    """
    weights = [len(n) if class_cap is None else min(len(n), class_cap) for n in fold.images.values()]
    number = number_below(sum(weights), seed, index)
    class_id = tuple(fold.images)[bisect_right(list(accumulate(weights)), number)]
    images = fold.images[class_id]
    query = images[number_below(len(images), seed, index, 0)]
    return Episode(class_id, query, _different(images, query, shots, seed, index))


def _image_list_episode(
    fold: Fold, queries: list[tuple[str, list[int]]], shots: int, seed: int, index: int
) -> Episode:
    """Draw by PFENet's and BAM's rule: images in the list's order, one of their classes, then supports."""
    query, classes = queries[index % len(queries)]
    class_id = classes[number_below(len(classes), seed, index)]
    return Episode(class_id, query, _different(fold.images[class_id], query, shots, seed, index))


def _draw_hsnet(fold: Fold, shots: int, count: int, seed: int) -> list[Episode]:
    """Draw by HSNet's rule: one stream of random numbers for all episodes; a support may come twice."""
    random, episodes = np.random.RandomState(seed), []
    class_ids = tuple(fold.images)
    for index in range(count):
        if fold.class_first:
            class_id = _choice(random, class_ids)
            query = _choice(random, fold.images[class_id])
        else:
            query, class_id = fold.queries[index % len(fold.queries)]
        supports: list[str] = []
        while len(supports) < shots:
            support = _choice(random, fold.images[class_id])
            if support != query:
                supports.append(support)
        episodes.append(Episode(class_id, query, tuple(supports)))
    return episodes


def _choice(random: np.random.RandomState, items: Sequence[T]) -> T:
    # HSNet's call. It permutes the whole list: any other way to draw one item gives other episodes.
    return items[int(random.choice(len(items), 1, replace=False)[0])]


def _different(images: Sequence[str], query: str, shots: int, seed: int, index: int) -> tuple[str, ...]:
    supports: list[str] = []
    draw = 1
    while len(supports) < shots:
        support = images[number_below(len(images), seed, index, draw)]
        if support != query and support not in supports:
            supports.append(support)
        draw += 1
    return tuple(supports)


def number_below(below: int, *key: int | str) -> int:
    """Return a number from 0 to `below` - 1, uniform and determined by the key."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") % below


def shuffled(items: Sequence[T], *key: int | str) -> list[T]:
    """Return items in an order that is determined by a key of integers and names."""
    return [items[position] for position in _order(len(items), *key)]


@lru_cache(maxsize=1024)  # sorting a class again for each of its queries would take hours on COCO
def _order(length: int, *key: int | str) -> list[int]:
    keys = [hashlib.sha256(repr((*key, n)).encode()).digest() for n in range(length)]
    return sorted(range(length), key=keys.__getitem__)


def _classes_by_image(fold: Fold) -> list[tuple[str, list[int]]]:
    classes_of: dict[str, list[int]] = {}
    for name, class_id in fold.queries:
        classes_of.setdefault(name, []).append(class_id)
    # By name, and numbers by size, as in PFENet's and BAM's lists; HSNet's train files go class by class.
    return sorted(classes_of.items(), key=lambda item: (len(item[0]), item[0]))


def _check(fold: Fold, shots: int, count: int, seed: int) -> None:
    for name, value, low in (("shots", shots, 1), ("number of episodes", count, 1), ("seed", seed, 0)):
        if not low <= value < 2**32:
            raise DataError(f"The {name} is {value}; it must be from {low} to {2**32 - 1}.")
    if not fold.queries:
        raise DataError(f"Fold {fold.number} of {fold.benchmark} ({fold.split}) has no images to draw from.")
    if too_small := fold.too_small(shots):
        name, number = next(iter(too_small.items()))
        more = f" (and {len(too_small) - 1} other classes)" if len(too_small) > 1 else ""
        raise DataError(
            f"Class '{name}' has {number} image{'s' * (number != 1)}{more}, but {needed_images(shots)}. "
            "Use fewer shots, or add images."
        )
