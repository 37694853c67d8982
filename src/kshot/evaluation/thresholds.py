"""Tune a model's threshold, on base classes.

Cross-entropy trains calibrated probabilities. If they are rarely high, the best IoU needs a lower threshold
than 0.5, the paper's argmax: for F1 it is half of the best possible F1 (Lipton,
Elkan & Narayanaswamy 2014, "Optimal thresholding of classifiers to maximize F1 measure").
"""

from collections.abc import Callable

import numpy as np
import torch

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.sampling import Episode
from kshot.evaluation.evaluator import EpisodeReader
from kshot.evaluation.metrics import count_pixels, score_episodes
from kshot.evaluation.selection import selection_manifest
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import FloatMap, Support

THRESHOLDS = tuple(n / 20 for n in range(1, 20))


def score_thresholds(
    segmenter: Segmenter,
    dataset: Dataset,
    data: str,
    fold: int,
    num_episodes: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[float, float]:
    """Return a model's mIoU (0 to 1) by threshold, on 1-shot episodes of a fold's base classes.

    These are the classes that it was trained on, without those that its checkpoint was chosen on. Each
    episode's own class is removed from H_cls's logits, so that the base map treats it as novel.
    Raises DataError if too few images are on disk.
    """
    trained_on = train_fold(data, fold, exclude_holdout=segmenter.config.selected_on == "base")
    manifest, _ = selection_manifest(trained_on, num_episodes, dataset)
    places = {name: place for place, name in enumerate(segmenter.config.base_classes)}
    reader = EpisodeReader(dataset, manifest.episodes, Resize(segmenter.config.image_size))
    counts = []
    for done, episode in enumerate(manifest.episodes):
        own = places.get(manifest.classes[episode.class_id], -1)
        ground_truth = dataset.ground_truth(episode.query, episode.class_id)
        probability = _probability(segmenter, reader, episode, own, ground_truth.shape)
        counts.append([count_pixels(probability > threshold, ground_truth) for threshold in THRESHOLDS])
        on_progress(done + 1, len(manifest.episodes))
    class_ids = np.array([episode.class_id for episode in manifest.episodes])
    classes = sorted(set(class_ids.tolist()))
    by_threshold = np.array(counts).swapaxes(0, 1)
    scores = (score_episodes(each, class_ids, classes).miou for each in by_threshold)
    return dict(zip(THRESHOLDS, scores, strict=True))


def _probability(
    segmenter: Segmenter, reader: EpisodeReader, episode: Episode, own: int, size: tuple[int, int]
) -> FloatMap:
    """Return the foreground probability of a query at `size`. own: index of its base class, -1 if none."""
    runner = segmenter.runner._replace(method=segmenter.method)
    query = runner.features(reader.image(episode.query), as_query=True)
    query = runner.method.without_class(query, torch.tensor([own], device=segmenter.device))
    shots = [
        Support(
            runner.features(reader.image(name), as_query=False),
            reader.support_mask(name, episode.class_id).to(segmenter.device),
        )
        for name in episode.supports
    ]
    return runner.segment(query, shots, size).probability
