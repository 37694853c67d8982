"""The training data of a fold: images of its base classes, and label maps without its novel classes.

Two kinds of classes are not trained on. Holdout classes are base classes on which a checkpoint is chosen;
excluded classes are all that must never be labelled as such in training: the novel ones, and the holdout ones
if asked for. Only `base_labels`, and the folds of user folders, read masks.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from kshot.data.base import Dataset
from kshot.data.benchmarks import parts_of, read_fold
from kshot.data.folds import FOLDED, NUM_FOLDS, base_classes, fold_holdout_classes, novel_classes
from kshot.data.sampling import Fold, shuffled
from kshot.errors import DataError
from kshot.types import IGNORE_INDEX, GroundTruth

NovelPixels = Literal["background", "drop", "ignore"]
"""Treatment of excluded objects in training images: background (HSNet), drop these images (BAM), or ignore
their pixels (RePRI)."""

MIN_CLASSES = 5
"""Number of classes of a user folder from which on some are held out; with fewer, all are trained on."""

UnknownPixels = Literal["background", "ignore"]
"""Treatment of 255, VOC's borders, in training: background (HSNet) or ignored."""


def holdout_classes(data: str, fold: int) -> tuple[int, ...]:
    """Return the ids of the classes that training excludes so that a checkpoint can be chosen on them.

    On PASCAL and COCO see `folds.fold_holdout_classes`; elsewhere they are every fifth class, from the third.
    Raises DataError if there are fewer than MIN_CLASSES.
    """
    if data in FOLDED:
        return fold_holdout_classes(data, fold)
    class_ids = tuple(_training_pairs(data, fold).images)
    if len(class_ids) < MIN_CLASSES:
        raise DataError(
            f"{data} has {len(class_ids)} classes; at least {MIN_CLASSES} are needed to hold some out. "
            "Train with --set select_on=null, pretrain with --set exclude_holdout=false."
        )
    return class_ids[2::5]


def has_holdout_classes(data: str, fold: int) -> bool:
    """Return whether there are enough classes to hold some out."""
    return data in FOLDED or len(_training_pairs(data, fold).images) >= MIN_CLASSES


def train_fold(data: str, fold: int, *, exclude_holdout: bool) -> Fold:
    """Return the pairs that a fold trains on: the train lists of the other folds.

    A user folder, or FSS-1000, has no folds: all its training pairs are used. exclude_holdout: exclude the
    holdout classes, so that a checkpoint can be chosen on them.
    """
    excluded = set(holdout_classes(data, fold)) if exclude_holdout else set()
    if data not in FOLDED:
        pairs = _training_pairs(data, fold)
        return pairs.only(set(pairs.images) - excluded)
    class_ids = set(base_classes(data, fold)) - excluded
    return join(fold, [read_fold(data, n, "train") for n in range(NUM_FOLDS) if n != fold]).only(class_ids)


def _training_pairs(data: str, fold: int) -> Fold:
    """Return all training pairs of a benchmark without folds, without classes that have no image."""
    return _read_training_pairs(data, fold, _state_of(Path(data)))


@lru_cache(maxsize=2)  # a training asks several times, and each time all masks of a folder would be read
def _read_training_pairs(data: str, fold: int, state: int) -> Fold:
    splits, _ = parts_of(data)
    pairs = read_fold(data, fold, splits[0] if splits else None)
    return pairs.only(class_id for class_id, names in pairs.images.items() if names)


def _state_of(folder: Path) -> int:
    """Return a hash of a folder's names, sizes and times, which changes with its pairs; opens no mask."""
    masks = folder / "masks"
    files = [folder / "classes.txt", folder / "images", masks, *masks.glob("*"), *masks.glob("*/*")]
    found = [(file, file.stat()) for file in files if file.exists()]
    return hash(frozenset((file, about.st_size, about.st_mtime_ns) for file, about in found))


def join(number: int, parts: Sequence[Fold]) -> Fold:
    """Return the pairs of several folds together, as fold `number`."""
    images = {class_id: names for part in parts for class_id, names in part.images.items()}
    return Fold(
        parts[0].benchmark,
        parts[0].split,
        number,
        parts[0].class_names,
        images,
        tuple(query for part in parts for query in part.queries),
    )


def excluded_classes(data: str, fold: int, *, exclude_holdout: bool) -> tuple[int, ...]:
    """Return the ids of the classes that must never be labelled in training: the novel ones, if any.

    exclude_holdout: add the holdout classes.
    """
    novel = novel_classes(data, fold) if data in FOLDED else ()
    return novel + (holdout_classes(data, fold) if exclude_holdout else ())


def image_names(fold: Fold) -> list[str]:
    """Return the names of a fold's images, each once, in the order of its pairs."""
    return list(dict.fromkeys(name for name, _ in fold.queries))


def draw_image_names(fold: Fold, seed: int, epoch: int, class_cap: int | None) -> list[str]:
    """Draw the images of an epoch, shuffled: all of them once, or up to `class_cap` of each class.

    With a cap, a common class shows its images in turn over several epochs. An image of two classes can then
    come twice.
    """
    if class_cap is None:
        return shuffled(image_names(fold), seed, epoch)
    drawn: list[str] = []
    for class_id, names in fold.images.items():
        count = min(len(names), class_cap)
        for place in range(epoch * count, (epoch + 1) * count):
            cycle, position = divmod(place, len(names))
            drawn.append(shuffled(names, seed, class_id, cycle)[position])
    return shuffled(drawn, seed, epoch)


def base_labels(
    dataset: Dataset,
    name: str,
    class_ids: tuple[int, ...],
    excluded: tuple[int, ...] = (),
    *,
    novel_pixels: NovelPixels = "background",
    unknown_pixels: UnknownPixels = "ignore",
) -> GroundTruth:
    """Return an image's label map (H, W): 0 background, n + 1 for `class_ids[n]`, 255 ignored.

    Where objects overlap, the class that covers less of the image is on top.
    """
    ground_truths = {class_id: dataset.ground_truth(name, class_id) for class_id in dataset.classes_in(name)}
    if not ground_truths:
        raise DataError(f"Image {name} shows no class; it cannot be trained on.")
    labels = np.zeros(next(iter(ground_truths.values())).shape, dtype=np.uint8)
    if unknown_pixels == "ignore":
        for ground_truth in ground_truths.values():
            labels[ground_truth == IGNORE_INDEX] = IGNORE_INDEX
    for class_id, ground_truth in sorted(ground_truths.items(), key=lambda item: -int((item[1] == 1).sum())):
        if class_id in class_ids:
            labels[ground_truth == 1] = class_ids.index(class_id) + 1
        elif class_id in excluded and novel_pixels == "ignore":
            labels[ground_truth == 1] = IGNORE_INDEX
        else:
            labels[ground_truth == 1] = 0
    return labels


def drop_excluded(fold: Fold, dataset: Dataset, excluded: tuple[int, ...], novel_pixels: NovelPixels) -> Fold:
    """Return the fold without images of excluded classes if `novel_pixels` is "drop", else unchanged."""
    if novel_pixels != "drop":
        return fold
    return fold.keep(n for n in image_names(fold) if not set(dataset.classes_in(n)) & set(excluded))


def present(fold: Fold, dataset: Dataset) -> Fold:
    """Return the part of a fold whose images are on disk."""
    return fold.keep(name for name in image_names(fold) if dataset.image_path(name).exists())
