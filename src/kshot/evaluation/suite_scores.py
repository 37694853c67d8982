"""Scores of a suite of tasks, with intervals; all are fractions.

A task's IoU is the mean over its draws of the sum of intersections over the sum of unions of the draw's
queries. A set's is the mean over its tasks, the suite's the mean over its sets: a set has the same weight for
any number of classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot.evaluation.metrics import NUM_RESAMPLES, IntArray, bootstrap

FloatArray = NDArray[np.float64]

SIZES = (0.0, 0.03, 0.1, 0.25, 1.0)
"""Bounds of the bins: shares of the image that the object covers."""


@dataclass(frozen=True, eq=False)
class SuiteCounts:
    """Episodes of T tasks, in any order.

    counts: (N, 4 M) in the order of `metrics.Counts`, M methods' side by side. task, draw: (N,) from 0.
    set_of_task: (T,) the index of each task's set, ascending from 0.
    """

    counts: IntArray
    task: IntArray
    draw: IntArray
    set_of_task: IntArray

    @property
    def num_sets(self) -> int:
        """Number of sets."""
        return int(self.set_of_task.max()) + 1

    def task_iou(self) -> FloatArray:
        """Return the IoU of each task by each method: (M, T)."""
        draws, group = self._groups()
        sums = np.stack([self.counts[group == g].sum(axis=0) for g in range(len(draws))])
        return self._mean_over_draws(sums[:, 0::4].T / np.maximum(sums[:, 1::4].T, 1))

    def resample_episodes(self) -> FloatArray:
        """Return the IoU of each task for resamples of each draw's episodes: (M, R, T)."""
        draws, group = self._groups()
        samples = bootstrap(self.counts, group, range(len(draws)))
        iou = samples.reshape(-1, NUM_RESAMPLES, samples.shape[-1])[..., 2:]  # behind mIoU and FB-IoU
        return self._mean_over_draws(iou)

    def set_iou(self, task_iou: FloatArray) -> FloatArray:
        """Return the means of tasks (…, T) over each set: (…, S)."""
        of_set = [task_iou[..., self.set_of_task == s].mean(axis=-1) for s in range(self.num_sets)]
        return np.stack(of_set, axis=-1)

    def resample(self) -> tuple[FloatArray, FloatArray]:
        """Return the scores of resamples: the suite's (M, R), and each set's (M, R, S).

        For the suite, sets are resampled, and the tasks within each drawn set; for a set, the episodes within
        its tasks. A suite of one set is scored as that set.
        """
        by_set = self.set_iou(self.resample_episodes())
        if self.num_sets == 1:
            return by_set[..., 0], by_set
        return resample_sets(self.task_iou(), self.set_of_task), by_set

    def _groups(self) -> tuple[IntArray, IntArray]:
        """Return the task of each draw (G,), and the index of each episode's draw (N,)."""
        keys = np.stack([self.task, self.draw], axis=1)
        draws, group = np.unique(keys, axis=0, return_inverse=True)
        return draws[:, 0], group

    def _mean_over_draws(self, iou: FloatArray) -> FloatArray:
        """Return the means of draws (…, G) over each task: (…, T)."""
        draws, _ = self._groups()
        of_task = [iou[..., draws == t].mean(axis=-1) for t in range(len(self.set_of_task))]
        return np.stack(of_task, axis=-1)


def resample_sets(task_iou: FloatArray, set_of_task: IntArray) -> FloatArray:
    """Draw sets with replacement, then tasks within each drawn set, the same for all methods.

    task_iou: (M, T). Returns the mean over the drawn sets: (M, R).
    """
    random = np.random.default_rng(0)
    tasks = [np.flatnonzero(set_of_task == s) for s in range(int(set_of_task.max()) + 1)]
    drawn_sets = random.integers(0, len(tasks), (NUM_RESAMPLES, len(tasks)))
    means = np.zeros((len(tasks), len(task_iou), NUM_RESAMPLES))
    for place, of_place in enumerate(drawn_sets.T):
        for one, own in enumerate(tasks):
            rows = np.flatnonzero(of_place == one)
            drawn = own[random.integers(0, len(own), (len(rows), len(own)))]
            means[place][:, rows] = task_iou[:, drawn].mean(axis=-1)
    return np.asarray(means.mean(axis=0))


class SizeScore(NamedTuple):
    """The score of objects whose share of the image is in a bin. iou: None if there are none."""

    low: float
    high: float
    iou: float | None
    num_images: int


def iou_by_size(counts: IntArray, task: IntArray, query: Sequence[str], share: FloatArray) -> list[SizeScore]:
    """Return the IoU of objects by their share of the image, for each bin of SIZES; the last one is closed.

    counts: (N, 4); task, query, share: N. A bin's IoU is the mean over tasks of the mean IoU of single
    images: in a sum, large objects would dominate. An image counts once for each task.
    """
    iou = counts[:, 0] / np.maximum(counts[:, 1], 1)
    found = []
    for low, high in pairwise(SIZES):
        inside = (low <= share) & ((share < high) | (high == SIZES[-1]))
        means = [iou[inside & (task == t)].mean() for t in np.unique(task[inside])]
        images = {(task[place], query[place]) for place in np.flatnonzero(inside).tolist()}
        found.append(SizeScore(low, high, float(np.mean(means)) if means else None, len(images)))
    return found
