"""The base learner's data: the images that it is trained and validated on, and how they are loaded."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from accelerate.accelerator import Accelerator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from kshot.data.base import Dataset
from kshot.data.base_classes import (
    base_labels,
    draw_image_names,
    drop_excluded,
    excluded_classes,
    image_names,
    join,
    present,
    train_fold,
)
from kshot.data.benchmarks import read_fold
from kshot.data.folds import FOLDED, NUM_FOLDS
from kshot.data.loading import read_ahead
from kshot.data.sampling import Fold, shuffled
from kshot.errors import DataError
from kshot.io.images import read_image
from kshot.models.base_learner import PSPNet
from kshot.models.hypercorrelation import resize
from kshot.training.augment import apply_augmentation, draw_augmentation
from kshot.training.recipes import PretrainConfig
from kshot.transforms import Resize
from kshot.types import IGNORE_INDEX, GroundTruth


class BaseData:
    """The images of a fold's base classes that are on disk, split into training and validation images.

    Raises DataError if there are none.
    """

    def __init__(self, config: PretrainConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        fold = train_fold(config.data, config.fold, exclude_holdout=config.exclude_holdout)
        named = _class_ids(fold, config.excluded_classes)
        fold = fold.only(set(fold.images) - set(named))
        self.class_ids = tuple(fold.images)
        self.class_names = tuple(fold.class_names[c] for c in self.class_ids)
        excluded = excluded_classes(config.data, config.fold, exclude_holdout=config.exclude_holdout)
        self.excluded = excluded + named
        fold = drop_excluded(present(fold, dataset), dataset, self.excluded, config.novel_pixels)
        names = image_names(fold)
        self.val_images = self._choose_val_images(names)
        self.fold = fold.keep(set(names) - set(self.val_images)) if config.num_val_images else fold
        if not self.fold.queries:
            raise DataError(f"None of {config.data}'s training images exists. Check --root.")

    @lru_cache(maxsize=4)  # noqa: B019  one object a run; called for each image of an epoch
    def epoch(self, epoch: int) -> list[str]:
        """Return the names of an epoch's images, in their order."""
        return draw_image_names(self.fold, self.config.seed, epoch, self.config.class_cap)

    def labels(self, name: str) -> GroundTruth:
        """Return an image's label map; see `base_labels`."""
        return base_labels(
            self.dataset,
            name,
            self.class_ids,
            self.excluded,
            novel_pixels=self.config.novel_pixels,
            unknown_pixels=self.config.unknown_pixels,
        )

    def _choose_val_images(self, names: list[str]) -> list[str]:
        if self.config.num_val_images:
            return sorted(shuffled(sorted(names), self.config.seed)[: self.config.num_val_images])
        if self.config.data not in FOLDED:
            return []
        fold = self.config.fold
        others = [read_fold(self.config.data, n, "val") for n in range(NUM_FOLDS) if n != fold]
        return image_names(present(join(fold, others).only(self.class_ids), self.dataset))


class CropDataset(TorchDataset[tuple[Tensor, Tensor]]):
    """Training crops by their position in a phase: image (3, crop, crop) and labels (crop, crop)."""

    def __init__(self, data: BaseData, phase: int) -> None:
        self.data, self.phase = data, phase
        self.per_epoch = len(data.epoch(0))

    @property
    def steps(self) -> int:
        """Number of steps of the phase; every batch is full."""
        config = self.data.config
        return max(1, round(config.phases[self.phase].epochs * self.per_epoch / config.batch))

    def __len__(self) -> int:
        return self.steps * self.data.config.batch

    def name(self, position: int) -> str:
        """Return the name of the image at a position."""
        epoch, index = divmod(position, self.per_epoch)
        return self.data.epoch(epoch)[index]

    def path(self, position: int) -> str:
        """Return the path of the image at a position."""
        return str(self.data.dataset.image_path(self.name(position)))

    def names(self, step: int) -> list[str]:
        """Return the names of a step's images."""
        batch = self.data.config.batch
        return [self.name(position) for position in range(step * batch, (step + 1) * batch)]

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        config, name = self.data.config, self.name(position)
        augmentation = draw_augmentation(
            (config.seed, self.phase, position), scale=config.scale, degrees=config.degrees, blur=config.blur
        )
        image = read_image(self.data.dataset.image_path(name))
        return apply_augmentation(image, self.data.labels(name), augmentation, config.crop)

    def batches(
        self, step: int, accelerator: Accelerator, workers: int
    ) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yield this process's share of each batch from a step on, in the parts that are accumulated."""
        config = self.data.config
        rank, world = accelerator.process_index, accelerator.num_processes
        positions = [
            list(range(s * config.batch + rank, (s + 1) * config.batch, world))
            for s in range(step, self.steps)
        ]
        for images, labels in read_ahead(self, workers, self.path, batches=positions):
            images, labels = images.to(accelerator.device), labels.to(accelerator.device)
            parts = zip(images.chunk(config.accumulate), labels.chunk(config.accumulate), strict=True)
            yield list(parts)


class BaseValidation:
    """Scores a base learner on the validation images."""

    def __init__(self, data: BaseData, accelerator: Accelerator) -> None:
        self.data, self.accelerator = data, accelerator

    def score(self, network: PSPNet, limit: int | None = None) -> dict[str, float]:
        """Return the mIoU over the base classes that occur in the first `limit` images, or in all; 0 to 1.

        Images are squashed to the crop's size, as for the meta-learner, and scored there. Without images the
        result is empty.
        """
        data, transform = self.data, Resize(self.data.config.crop)
        network.eval()
        counts = np.zeros((2, len(data.class_ids) + 1), dtype=np.int64)
        for name in data.val_images[:limit]:
            image = transform.image(read_image(data.dataset.image_path(name)))
            labels = transform.mask(data.labels(name))
            with torch.inference_mode(), self.accelerator.autocast():
                logits = network(image.to(self.accelerator.device))
            predicted = resize(logits.float(), labels.shape).argmax(dim=1)[0].cpu().numpy()
            counts += _intersections_and_unions(predicted, labels, counts.shape[1])
        occurs = counts[1, 1:] > 0
        iou = counts[0] / np.maximum(counts[1], 1)
        if not occurs.any():
            return {}
        return {"base_miou": float(iou[1:][occurs].mean()), "background_iou": float(iou[0])}


def _class_ids(fold: Fold, names: Sequence[str]) -> tuple[int, ...]:
    """Return the ids of classes that a fold trains on; raise DataError for a name that is not among them."""
    ids = {fold.class_names[class_id]: class_id for class_id in fold.images}
    unknown = [name for name in names if name not in ids]
    if unknown:
        raise DataError(
            f"There is no base class '{unknown[0]}' to exclude. The classes are: {', '.join(ids)}."
        )
    return tuple(ids[name] for name in names)


def _intersections_and_unions(
    predicted: GroundTruth, labels: GroundTruth, num_classes: int
) -> NDArray[np.int64]:
    known = labels != IGNORE_INDEX
    confusion = np.bincount(
        labels[known].astype(np.int64) * num_classes + predicted[known], minlength=num_classes**2
    ).reshape(num_classes, num_classes)
    hit = np.diag(confusion)
    return np.stack([hit, confusion.sum(0) + confusion.sum(1) - hit])
