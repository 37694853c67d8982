"""Run a model, or another few-shot segmenter, on a suite of small tasks."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.data.tasks import SuiteEpisodes, TaskEpisode, TaskSet
from kshot.errors import DataError
from kshot.evaluation.metrics import Counts, count_pixels
from kshot.io.images import read_image
from kshot.models.feature_cache import CACHE_GB, Budget, FeatureCache, MemoryStorage
from kshot.segmenter import ClassSupport, Segmenter
from kshot.types import IGNORE_INDEX, FloatMap, GroundTruth, Support

Mask = NDArray[np.bool_]


class Runner(Protocol):
    """A model that learns from a few labelled images and segments others.

    Results of `encode` are cached; their tensors, single or in tuples, count towards the cache size.
    """

    def encode(self, image: Image.Image, *, as_query: bool) -> Any:
        """Compute what depends on the image only. as_query: the image is a query of an episode."""

    def fit(self, encoded: Sequence[Any], masks: Sequence[GroundTruth]) -> Any:
        """Learn from support images and their ground truths (H, W): 1 object, 0 elsewhere, 255 ignored."""

    def predict(self, fitted: Any, encoded: Any, size: tuple[int, int]) -> tuple[Mask, FloatMap]:
        """Return the mask of an encoded query of size (H, W), and the probability of each pixel in [0, 1]."""


class SegmenterRunner:
    """A kshot model as a Runner: images are squashed to the model's size, masks have the query's own size."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.runner = segmenter.runner

    def encode(self, image: Image.Image, *, as_query: bool) -> Any:
        """Extract the features of an image; those of a support image may cost less."""
        return self.runner.features(self.runner.transform.image(image), as_query=as_query)

    def fit(self, encoded: Sequence[Any], masks: Sequence[GroundTruth]) -> ClassSupport:
        """Pair features with masks; ignored pixels are not the object."""
        supports = [
            Support(features, self.runner.support_mask(mask))
            for features, mask in zip(encoded, masks, strict=True)
        ]
        return self.segmenter.learn(supports)

    def predict(self, fitted: ClassSupport, encoded: Any, size: tuple[int, int]) -> tuple[Mask, FloatMap]:
        """Segment a query; the mask is a vote of the support images."""
        found = self.runner.segment(encoded, fitted.shots, size, adapted=fitted.adapted)
        return found.mask, found.probability


class EpisodeScore(NamedTuple):
    """The score of one episode.

    counts: pixels. share: the object's share of the known pixels, 0 to 1. seconds: CPU time to encode and
    segment the query, even if its features were cached.
    """

    episode: TaskEpisode
    counts: Counts
    share: float
    seconds: float


class _Encoding(NamedTuple):
    name: str
    as_query: bool


def evaluate_suite(
    runner: Runner,
    sets: Sequence[TaskSet],
    episodes: SuiteEpisodes,
    *,
    cache_gb: float = CACHE_GB,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[EpisodeScore]:
    """Segment the query of every episode, and count the pixels that agree with the ground truth.

    Each image of a set is encoded once if the features fit into `cache_gb` GiB; each draw is fitted once. The
    scores are in the order of the episodes.
    Raises DataError for a missing image or set, ImageError or MaskError for a file that cannot be read.
    """
    by_name = {one.name: one for one in sets}
    check_files(by_name, episodes)
    scores: list[EpisodeScore] = []
    for name, found in groupby(episodes.episodes, key=lambda one: one.set_name):
        for score in _run_set(runner, by_name[name], list(found), int(cache_gb * 2**30)):
            scores.append(score)
            on_progress(len(scores), len(episodes.episodes))
    return scores


def check_files(by_name: dict[str, TaskSet], episodes: SuiteEpisodes) -> None:
    """Raise DataError if images or sets of the episodes are missing."""
    if unknown := {one.set_name for one in episodes.episodes} - by_name.keys():
        raise DataError(f"The episodes need the set '{min(unknown)}', but there are {', '.join(by_name)}.")
    for one in episodes.episodes:
        for name in (one.episode.query, *one.episode.supports):
            path = by_name[one.set_name].dataset.image_path(name)
            if not path.exists():
                raise DataError(f"Image {path} of the set {one.set_name} is missing. Restore it.")


def _run_set(
    runner: Runner, one: TaskSet, episodes: list[TaskEpisode], num_bytes: int
) -> Iterator[EpisodeScore]:
    queries = {row.episode.query for row in episodes}
    draws = [(key, list(rows)) for key, rows in groupby(episodes, key=_draw_of)]

    def encoding(name: str) -> _Encoding:
        return _Encoding(name, name in queries)

    def compute(what: _Encoding) -> tuple[Any, float]:
        image = read_image(one.dataset.image_path(what.name))
        start = time.process_time()
        encoded = runner.encode(image, as_query=what.as_query)
        return encoded, time.process_time() - start

    uses = (encoding(n) for (_, _, supports), rows in draws for n in (*supports, *map(_query_of, rows)))
    cache = FeatureCache(compute, MemoryStorage(uses, Budget(num_bytes)))
    for (class_id, _, supports), rows in draws:
        encoded = [cache.get(encoding(name))[0] for name in supports]
        fitted = runner.fit(encoded, [one.dataset.ground_truth(name, class_id) for name in supports])
        for row in rows:
            ground_truth = one.dataset.ground_truth(row.episode.query, class_id)
            yield _score(runner, fitted, cache.get(encoding(row.episode.query)), row, ground_truth)


def _score(
    runner: Runner, fitted: Any, query: tuple[Any, float], episode: TaskEpisode, ground_truth: GroundTruth
) -> EpisodeScore:
    encoded, seconds = query
    start = time.process_time()
    mask, _ = runner.predict(fitted, encoded, (ground_truth.shape[0], ground_truth.shape[1]))
    seconds += time.process_time() - start
    num_known = int(np.count_nonzero(ground_truth != IGNORE_INDEX))
    share = int(np.count_nonzero(ground_truth == 1)) / max(num_known, 1)
    return EpisodeScore(episode, count_pixels(mask, ground_truth), share, seconds)


def _draw_of(row: TaskEpisode) -> tuple[int, int, tuple[str, ...]]:
    return row.episode.class_id, row.draw, row.episode.supports


def _query_of(row: TaskEpisode) -> str:
    return row.episode.query
