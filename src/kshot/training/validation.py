"""Validation of a meta-learner during training: mIoU on fixed 1-shot episodes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from accelerate.accelerator import Accelerator

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.folds import FOLDED
from kshot.evaluation.metrics import count_pixels, score_episodes
from kshot.evaluation.selection import selection_fold, selection_manifest
from kshot.methods.base import Method
from kshot.methods.episode import EpisodeRunner
from kshot.methods.hsnet import HSNet
from kshot.methods.prototype import Prototype
from kshot.methods.two_pass import TwoPass
from kshot.results import SegmentationResult
from kshot.training.episodes import CachedEncoder
from kshot.training.recipes import TrainConfig
from kshot.types import Support

Scores = dict[str, float]


class Validation:
    """Episodes of the classes that the checkpoint is chosen on, scored at the images' own size.

    If no checkpoint is chosen, training sees these classes too: the holdout ones, or all if a benchmark has
    none. Such scores only show the progress of the training.
    """

    def __init__(
        self, config: TrainConfig, dataset: Dataset, encoder: CachedEncoder, accelerator: Accelerator
    ) -> None:
        self.dataset, self.encoder, self.accelerator = dataset, encoder, accelerator
        if config.select_on is None and config.data not in FOLDED:
            fold = train_fold(config.data, config.fold, exclude_holdout=False)
        else:
            fold = selection_fold(config.data, config.fold, config.select_on or "base")
        self.manifest = selection_manifest(fold, config.validate_episodes, dataset)[0]

    def score(self, method: HSNet | TwoPass, limit: int | None = None) -> Scores:
        """Return the mIoU of a method and of its passes on the first `limit` episodes, or on all; 0 to 1."""
        method.eval()
        with self.accelerator.autocast():
            return self._score(method, self.encoder.encode_one, limit)

    def prototype(self, method: HSNet | TwoPass, limit: int | None = None) -> Scores:
        """Return the mIoU of prototypes of B_cls on the same episodes: the baseline without training."""
        if method.cls_backbone is None:
            return {}
        scores = self._score(Prototype(method.cls_backbone), self.encoder.encode_cls, limit)
        return {"prototype_miou": scores["miou"]}

    def _score(self, method: Method, encode: Callable[[str], Any], limit: int | None) -> Scores:
        episodes = self.manifest.episodes[:limit]
        counts: dict[str, list[Any]] = {}
        runner = EpisodeRunner(method, self.encoder.transform, self.encoder.device)
        for class_id, query, (support,) in episodes:
            ground_truth = self.dataset.ground_truth(query, class_id)
            support_mask = self.encoder.transform.support_mask(self.dataset.ground_truth(support, class_id))
            encoded = Support(encode(support), support_mask.to(self.encoder.device))
            result = runner.segment(encode(query), [encoded], ground_truth.shape)
            for name, mask in _masks(result).items():
                counts.setdefault(name, []).append(count_pixels(mask, ground_truth))
        class_ids = np.array([episode.class_id for episode in episodes])
        classes = sorted(set(class_ids.tolist()))
        return {
            name: score_episodes(np.array(rows), class_ids, classes).miou for name, rows in counts.items()
        }


def _masks(result: SegmentationResult) -> dict[str, Any]:
    masks = {"miou": result.mask}
    if result.first_pass is not None:
        masks["first_pass_miou"] = result.first_pass > 0.5
    if result.second_pass is not None:
        masks["second_pass_miou"] = result.second_pass > 0.5
    return masks
