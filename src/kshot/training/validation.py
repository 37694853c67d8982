"""How good a meta-learner is while it learns: mIoU on fixed 1-shot episodes that it is not trained on."""

from collections.abc import Callable
from typing import Any

import numpy as np
from accelerate.accelerator import Accelerator

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.folds import FOLDED
from kshot.evaluation.metrics import count_pixels, score
from kshot.evaluation.selection import selection_fold, selection_manifest
from kshot.methods.base import Method
from kshot.methods.episode import EpisodeRunner
from kshot.methods.hsnet import HSNet
from kshot.methods.prototype import Prototype
from kshot.methods.two_pass import TwoPass
from kshot.results import SegmentationResult
from kshot.training.episodes import FeatureReader
from kshot.training.recipes import TrainConfig
from kshot.types import Support

Scores = dict[str, float]


class Validation:
    """Episodes of the classes that a checkpoint is chosen on, scored at the photographs' own size.

    Where nothing is chosen they are of classes that are trained on too: the held-out ones, or, where a
    benchmark has none, all. Such scores show how training goes, and nothing more.
    """

    def __init__(
        self, config: TrainConfig, dataset: Dataset, reader: FeatureReader, accelerator: Accelerator
    ) -> None:
        self.dataset, self.reader, self.accelerator = dataset, reader, accelerator
        if config.select_on is None and config.data not in FOLDED:
            fold = train_fold(config.data, config.fold, hold_out=False)
        else:
            fold = selection_fold(config.data, config.fold, config.select_on or "base")
        self.manifest = selection_manifest(fold, config.validate_episodes, dataset)[0]

    def score(self, method: HSNet | TwoPass, limit: int | None = None) -> Scores:
        """Score a method, and its passes, on the first `limit` episodes, or on all: mIoU from 0 to 1."""
        method.eval()
        with self.accelerator.autocast():
            return self._score(method, self.reader.read_one, limit)

    def prototype(self, method: HSNet | TwoPass, limit: int | None = None) -> Scores:
        """Score prototypes of B_cls on the same episodes: what is there without training."""
        if method.cls_backbone is None:
            return {}
        found = self._score(Prototype(method.cls_backbone), self.reader.read_pyramid, limit)
        return {"prototype_miou": found["miou"]}

    def _score(self, method: Method, read: Callable[[str], Any], limit: int | None) -> Scores:
        episodes = self.manifest.episodes[:limit]
        counts: dict[str, list[Any]] = {}
        runner = EpisodeRunner(method, self.reader.transform, self.reader.device)
        for class_id, query, (support,) in episodes:
            ground_truth = self.dataset.ground_truth(query, class_id)
            mask = self.reader.transform.support_mask(self.dataset.ground_truth(support, class_id))
            shown = Support(read(support), mask.to(self.reader.device))
            result = runner.segment(read(query), [shown], ground_truth.shape)
            for name, found in _masks(result).items():
                counts.setdefault(name, []).append(count_pixels(found, ground_truth))
        class_ids = np.array([episode.class_id for episode in episodes])
        classes = sorted(set(class_ids.tolist()))
        return {name: score(np.array(found), class_ids, classes).miou for name, found in counts.items()}


def _masks(result: SegmentationResult) -> dict[str, Any]:
    masks = {"miou": result.mask}
    if result.first_pass is not None:
        masks["first_pass_miou"] = result.first_pass > 0.5
    if result.second_pass is not None:
        masks["second_pass_miou"] = result.second_pass > 0.5
    return masks
