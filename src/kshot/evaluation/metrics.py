"""mIoU and FB-IoU as the field counts them, with intervals.

Intersections and unions are summed over all episodes of a class, and divided once: IoU = I / max(U, 1). mIoU
is the mean over the fold's classes; a class without episodes counts as 0. FB-IoU is the mean of the IoU of
foreground and background, each from the sums over all episodes. Scores are fractions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot.types import IGNORE_INDEX

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95

IntArray = NDArray[np.int64]
Interval = tuple[float, float]


class Counts(NamedTuple):
    """Numbers of pixels in one episode, without those of unknown ground truth (255)."""

    intersection: int
    union: int
    background_intersection: int
    background_union: int


class Scores(NamedTuple):
    """Scores as fractions. class_iou: by class id."""

    miou: float
    fb_iou: float
    class_iou: dict[int, float]


def count_pixels(prediction: NDArray[np.bool_], ground_truth: NDArray[np.uint8]) -> Counts:
    """Count the pixels of a mask (H, W) that agree with the ground truth (H, W) of 0, 1 and 255."""
    known = ground_truth != IGNORE_INDEX
    found, real = prediction & known, ground_truth == 1
    num_known, num_found, num_real = (int(np.count_nonzero(a)) for a in (known, found, real))
    both = int(np.count_nonzero(found & real))
    either = num_found + num_real - both
    return Counts(both, either, num_known - either, num_known - both)


def score_episodes(counts: IntArray, class_ids: IntArray, classes: Sequence[int]) -> Scores:
    """Return the scores of episodes: counts (N, 4) as in `Counts`, class ids (N,), and the fold's classes."""
    sums = np.stack([counts[class_ids == c].sum(axis=0) for c in classes])
    iou = sums[:, 0] / np.maximum(sums[:, 1], 1)
    class_iou = {c: float(value) for c, value in zip(classes, iou, strict=True)}
    return Scores(float(iou.mean()), float(_fb_iou(sums.sum(axis=0))), class_iou)


def bootstrap(
    counts: IntArray, class_ids: IntArray, classes: Sequence[int], seed: int = 0
) -> NDArray[np.float64]:
    """Return scores of resampled episodes: (resamples, 2 + classes) of mIoU, FB-IoU, and each class's IoU.

    counts: (N, 4 M), M methods' counts on the same episodes side by side; for M > 1 the result is
    (M, resamples, 2 + classes), with the same resamples for all. Each class keeps its number of episodes.
    """
    sums = np.stack([_resampled_sums(counts[class_ids == c], c, seed) for c in classes])  # (C, R, 4 M)
    methods = []
    for first in range(0, counts.shape[1], 4):
        mine = sums[..., first : first + 4]
        iou = mine[..., 0] / np.maximum(mine[..., 1], 1)
        methods.append(np.concatenate([iou.mean(axis=0)[None], _fb_iou(mine.sum(axis=0))[None], iou]).T)
    return methods[0] if len(methods) == 1 else np.stack(methods)


def interval(samples: NDArray[np.float64]) -> Interval:
    """Return the middle 95 % of samples (R,)."""
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [outside, 1 - outside])
    return float(low), float(high)


def mean_interval(values: NDArray[np.floating[Any]]) -> Interval:
    """Return the 95 % bootstrap interval of the mean of values (N,)."""
    drawn = np.random.default_rng(0).integers(0, len(values), (NUM_RESAMPLES, len(values)))
    return interval(values[drawn].mean(axis=1))


def _resampled_sums(counts: IntArray, class_id: int, seed: int) -> NDArray[np.float64]:
    """Return the sums of resamples of a class's episodes: (R, columns)."""
    number = len(counts)
    if number == 0:
        return np.zeros((NUM_RESAMPLES, counts.shape[1]))
    random = np.random.default_rng([seed, class_id])
    times = random.multinomial(number, np.full(number, 1 / number), size=NUM_RESAMPLES)
    return (times.astype(np.float64) @ counts).astype(np.float64)


def _fb_iou(sums: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the mean of both IoUs of sums (…, 4)."""
    values = np.asarray(sums, dtype=np.float64)
    foreground = values[..., 0] / np.maximum(values[..., 1], 1)
    background = values[..., 2] / np.maximum(values[..., 3], 1)
    return np.asarray((foreground + background) / 2)
