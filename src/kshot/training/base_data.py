"""The base learner's data: which photographs it is trained and validated on, and how they are read."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from kshot.data.base import Dataset as Photographs
from kshot.data.base_classes import (
    base_labels,
    draw_photographs,
    join,
    photographs,
    present,
    train_fold,
    unseen_classes,
    without_unseen,
)
from kshot.data.benchmarks import read_fold
from kshot.data.folds import FOLDED, NUM_FOLDS
from kshot.data.loading import read_ahead
from kshot.data.sampling import Fold, shuffled
from kshot.errors import DataError
from kshot.io.images import read_image
from kshot.models.base_learner import PSPNet
from kshot.models.hypercorrelation import resize
from kshot.training.augment import apply_changes, draw_changes, squash
from kshot.training.recipes import PretrainConfig
from kshot.types import IGNORE_INDEX, GroundTruth


class BaseData:
    """A fold's base photographs that are on disk, divided into those to train and to validate on.

    Raises DataError if there are none.
    """

    def __init__(self, config: PretrainConfig, dataset: Photographs) -> None:
        self.config, self.dataset = config, dataset
        fold = train_fold(config.data, config.fold, hold_out=config.hold_out)
        left_out = _named_classes(fold, config.leave_out)
        fold = fold.only(set(fold.images) - set(left_out))
        self.class_ids = tuple(fold.images)
        self.class_names = tuple(fold.class_names[c] for c in self.class_ids)
        self.unseen = unseen_classes(config.data, config.fold, hold_out=config.hold_out) + left_out
        fold = without_unseen(present(fold, dataset), dataset, self.unseen, config.novel_pixels)
        names = photographs(fold)
        self.kept_back = self._choose_kept_back(names)
        self.fold = fold.keep(set(names) - set(self.kept_back)) if config.kept_back else fold
        if not self.fold.queries:
            raise DataError(f"None of {config.data}'s training photographs is there. Check --root.")

    @lru_cache(maxsize=4)  # noqa: B019  an object a run, and asked for each photograph of an epoch
    def epoch(self, epoch: int) -> list[str]:
        """Name the photographs of an epoch, in their order."""
        return draw_photographs(self.fold, self.config.seed, epoch, self.config.class_cap)

    def labels(self, name: str) -> GroundTruth:
        """Read a photograph's label map; see `base_labels`."""
        return base_labels(
            self.dataset,
            name,
            self.class_ids,
            self.unseen,
            novel_pixels=self.config.novel_pixels,
            unknown_pixels=self.config.unknown_pixels,
        )

    def _choose_kept_back(self, names: list[str]) -> list[str]:
        if self.config.kept_back:
            return sorted(shuffled(sorted(names), self.config.seed)[: self.config.kept_back])
        if self.config.data not in FOLDED:
            return []
        fold = self.config.fold
        others = [read_fold(self.config.data, n, "val") for n in range(NUM_FOLDS) if n != fold]
        return photographs(present(join(fold, others).only(self.class_ids), self.dataset))


class BaseReader(Dataset[tuple[Tensor, Tensor]]):
    """Reads changed photographs by their position in a phase: (3, crop, crop) and labels (crop, crop)."""

    def __init__(self, data: BaseData, phase: int) -> None:
        self.data, self.phase = data, phase
        self.per_epoch = len(data.epoch(0))

    @property
    def steps(self) -> int:
        """Number of steps of the phase, the last one full too."""
        config = self.data.config
        return max(1, round(config.phases[self.phase].epochs * self.per_epoch / config.batch))

    def __len__(self) -> int:
        return self.steps * self.data.config.batch

    def name(self, position: int) -> str:
        """Name the photograph at a position."""
        epoch, place = divmod(position, self.per_epoch)
        return self.data.epoch(epoch)[place]

    def place(self, position: int) -> str:
        """Say where the photograph at a position is."""
        return str(self.data.dataset.image_path(self.name(position)))

    def names(self, step: int) -> list[str]:
        """Name the photographs of a step."""
        batch = self.data.config.batch
        return [self.name(position) for position in range(step * batch, (step + 1) * batch)]

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        config, name = self.data.config, self.name(position)
        changes = draw_changes(
            (config.seed, self.phase, position), scale=config.scale, degrees=config.degrees, blur=config.blur
        )
        picture = read_image(self.data.dataset.image_path(name))
        return apply_changes(picture, self.data.labels(name), changes, config.crop)

    def batches(
        self, step: int, accelerator: Accelerator, workers: int
    ) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Read this process's share of each batch, from a step on, in the parts that are accumulated."""
        config = self.data.config
        rank, world = accelerator.process_index, accelerator.num_processes
        mine = [
            list(range(s * config.batch + rank, (s + 1) * config.batch, world))
            for s in range(step, self.steps)
        ]
        for images, labels in read_ahead(self, workers, self.place, batches=mine):
            images, labels = images.to(accelerator.device), labels.to(accelerator.device)
            parts = zip(images.chunk(config.accumulate), labels.chunk(config.accumulate), strict=True)
            yield list(parts)


class BaseValidation:
    """Scores a base learner on the photographs that are kept back."""

    def __init__(self, data: BaseData, accelerator: Accelerator) -> None:
        self.data, self.accelerator = data, accelerator

    def score(self, network: PSPNet, limit: int | None = None) -> dict[str, float]:
        """Give the mIoU over the base classes that the first `limit` photographs, or all, show; 0 to 1.

        Photographs are squashed to the crop's size, as the meta-learner sees them, and scored there.
        Without photographs there are no scores.
        """
        data = self.data
        network.eval()
        counts = np.zeros((2, len(data.class_ids) + 1), dtype=np.int64)
        for name in data.kept_back[:limit]:
            picture = read_image(data.dataset.image_path(name))
            image, labels = squash(picture, data.labels(name), data.config.crop)
            with torch.inference_mode(), self.accelerator.autocast():
                logits = network(image.unsqueeze(0).to(self.accelerator.device))
            answer = resize(logits.float(), labels.shape).argmax(dim=1)[0].cpu().numpy()
            counts += _intersections_and_unions(answer, labels.numpy(), counts.shape[1])
        shown = counts[1, 1:] > 0
        iou = counts[0] / np.maximum(counts[1], 1)
        if not shown.any():
            return {}
        return {"base_miou": float(iou[1:][shown].mean()), "background_iou": float(iou[0])}


def _named_classes(fold: Fold, names: Sequence[str]) -> tuple[int, ...]:
    """Find the ids of classes that a fold trains on; raises DataError for a name that is not among them."""
    ids = {fold.class_names[class_id]: class_id for class_id in fold.images}
    unknown = [name for name in names if name not in ids]
    if unknown:
        raise DataError(
            f"There is no base class '{unknown[0]}' to leave out. The classes are: {', '.join(ids)}."
        )
    return tuple(ids[name] for name in names)


def _intersections_and_unions(
    answer: GroundTruth, labels: GroundTruth, num_classes: int
) -> NDArray[np.int64]:
    known = labels != IGNORE_INDEX
    pairs = np.bincount(
        labels[known].astype(np.int64) * num_classes + answer[known], minlength=num_classes**2
    ).reshape(num_classes, num_classes)
    hit = np.diag(pairs)
    return np.stack([hit, pairs.sum(0) + pairs.sum(1) - hit])
