"""Choosing a model's threshold, on base classes.

Cross entropy teaches a network honest probabilities. Where it is seldom sure, the mask with the best IoU then
needs a lower threshold than 0.5, the paper's argmax: for F1 it is half of the F1 that can be reached (Lipton,
Elkan & Narayanaswamy 2014, "Optimal thresholding of classifiers to maximize F1 measure").
"""

from collections.abc import Callable

import numpy as np
import torch

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.sampling import Episode
from kshot.evaluation.evaluator import EpisodeReader
from kshot.evaluation.metrics import count_pixels, score
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
    """Score a model at each threshold, on 1-shot episodes of a fold's base classes: mIoU from 0 to 1.

    They are what it was trained on, without those that its checkpoint was chosen on. Its base map must treat
    them as if they were novel, so H_cls's logit of each episode's own class is taken away.
    Raises DataError if too few of the photographs are there.
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
    scores = (score(each, class_ids, classes).miou for each in by_threshold)
    return dict(zip(THRESHOLDS, scores, strict=True))


def _probability(
    segmenter: Segmenter, reader: EpisodeReader, episode: Episode, own: int, size: tuple[int, int]
) -> FloatMap:
    """Give the foreground probability of an episode's query at `size`; own: its class's place, -1 if none."""
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
