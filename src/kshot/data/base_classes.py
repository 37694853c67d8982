"""What a fold trains on: its base classes' photographs, and label maps with novel classes out of sight.

Pure but for `base_labels`, which reads a photograph's masks, and for folders of one's own, whose masks are
their lists.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from kshot.data.base import Dataset
from kshot.data.benchmarks import read_fold
from kshot.data.folds import FOLDED, NUM_FOLDS, base_classes, held_out_classes, novel_classes
from kshot.data.sampling import Fold, shuffled
from kshot.errors import DataError
from kshot.types import IGNORE_INDEX, GroundTruth

NovelPixels = Literal["background", "drop", "ignore"]
"""What becomes of novel and held-out objects in training photographs: background (HSNet), no such photographs
at all (BAM), or pixels without a label (RePRI)."""

MIN_CLASSES = 5
"""Of a folder of one's own, from which on some are held out; with fewer all are needed to train on."""

UnknownPixels = Literal["background", "ignore"]
"""What becomes of 255, VOC's borders, in training: background (HSNet) or pixels without a label."""


def held_out(data: str, fold: int) -> tuple[int, ...]:
    """Give the ids of the classes that are kept from training, to choose a checkpoint on.

    On PASCAL and COCO see `folds.held_out_classes`; elsewhere they are every fifth class, from the third.
    Raises DataError where there are fewer than MIN_CLASSES.
    """
    if data in FOLDED:
        return held_out_classes(data, fold)
    shown = tuple(_training_pairs(data, fold).images)
    if len(shown) < MIN_CLASSES:
        raise DataError(
            f"{data} shows {len(shown)} classes; from {MIN_CLASSES} on some can be held out to choose on. "
            "Train with --select-on nothing, pretrain with --no-hold-out."
        )
    return shown[2::5]


def can_hold_out(data: str, fold: int) -> bool:
    """Say whether there are enough classes to keep some from training."""
    return data in FOLDED or len(_training_pairs(data, fold).images) >= MIN_CLASSES


def train_fold(data: str, fold: int, *, hold_out: bool) -> Fold:
    """Give the pairs that a fold trains on: the train lists of the other folds.

    hold_out: leave the held-out classes out, so that a checkpoint can be chosen on them.
    A folder of one's own, or FSS-1000, has no folds: all its train pairs are used but for what is held out.
    """
    kept_out = set(held_out(data, fold)) if hold_out else set()
    if data not in FOLDED:
        pairs = _training_pairs(data, fold)
        return pairs.only(set(pairs.images) - kept_out)
    wanted = set(base_classes(data, fold)) - kept_out
    return join(fold, [read_fold(data, n, "train") for n in range(NUM_FOLDS) if n != fold]).only(wanted)


def _training_pairs(data: str, fold: int) -> Fold:
    """Give all training pairs of what has no folds, without classes that no photograph shows."""
    return _read_training_pairs(data, fold, _stamp(Path(data)))


@lru_cache(maxsize=2)  # a training asks several times, and a folder's masks are all read for it
def _read_training_pairs(data: str, fold: int, stamp: int) -> Fold:
    pairs = read_fold(data, fold, "train" if data == "fss1000" else None)
    return pairs.only(class_id for class_id, names in pairs.images.items() if names)


def _stamp(folder: Path) -> int:
    """Tell one state of a folder from another, as far as its pairs go, without opening a mask."""
    masks = folder / "masks"
    files = [folder / "classes.txt", folder / "images", masks, *masks.glob("*"), *masks.glob("*/*")]
    found = [(file, file.stat()) for file in files if file.exists()]
    return hash(frozenset((file, about.st_size, about.st_mtime_ns) for file, about in found))


def join(number: int, parts: Sequence[Fold]) -> Fold:
    """Put the pairs of several folds together, as those of fold `number`."""
    images = {class_id: names for part in parts for class_id, names in part.images.items()}
    return Fold(
        parts[0].benchmark,
        parts[0].split,
        number,
        parts[0].class_names,
        images,
        tuple(query for part in parts for query in part.queries),
    )


def unseen_classes(data: str, fold: int, *, hold_out: bool) -> tuple[int, ...]:
    """Give the ids of the classes that must never be shown as such: novel ones, where there are folds.

    hold_out: whether the held-out classes are among them.
    """
    novel = novel_classes(data, fold) if data in FOLDED else ()
    return novel + (held_out(data, fold) if hold_out else ())


def photographs(fold: Fold) -> list[str]:
    """Name a fold's photographs, each once, in the order of its pairs."""
    return list(dict.fromkeys(name for name, _ in fold.queries))


def draw_photographs(fold: Fold, seed: int, epoch: int, class_cap: int | None) -> list[str]:
    """Draw an epoch's photographs, shuffled: all of them once, or up to `class_cap` of each class.

    Under a cap a common class shows its photographs in turn, over several epochs. A photograph of two
    classes can then come twice.
    """
    if class_cap is None:
        return shuffled(photographs(fold), seed, epoch)
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
    unseen: tuple[int, ...] = (),
    *,
    novel_pixels: NovelPixels = "background",
    unknown_pixels: UnknownPixels = "ignore",
) -> GroundTruth:
    """Read a photograph's label map (H, W): 0 background, n + 1 for `class_ids[n]`, 255 without a label.

    Where objects overlap, the class that covers less of the photograph is on top.
    """
    ground_truths = {class_id: dataset.ground_truth(name, class_id) for class_id in dataset.classes_in(name)}
    if not ground_truths:
        raise DataError(f"Photograph {name} shows no class; it cannot be trained on.")
    labels = np.zeros(next(iter(ground_truths.values())).shape, dtype=np.uint8)
    if unknown_pixels == "ignore":
        for ground_truth in ground_truths.values():
            labels[ground_truth == IGNORE_INDEX] = IGNORE_INDEX
    for class_id, ground_truth in sorted(ground_truths.items(), key=lambda item: -int((item[1] == 1).sum())):
        if class_id in class_ids:
            labels[ground_truth == 1] = class_ids.index(class_id) + 1
        elif class_id in unseen and novel_pixels == "ignore":
            labels[ground_truth == 1] = IGNORE_INDEX
        else:
            labels[ground_truth == 1] = 0
    return labels


def without_unseen(fold: Fold, dataset: Dataset, unseen: tuple[int, ...], novel_pixels: NovelPixels) -> Fold:
    """Drop the photographs that show an unseen class, if that is asked for; else give the fold as it is."""
    if novel_pixels != "drop":
        return fold
    return fold.keep(n for n in photographs(fold) if not set(dataset.classes_in(n)) & set(unseen))


def present(fold: Fold, dataset: Dataset) -> Fold:
    """Give the part of a fold whose photographs are on disk."""
    return fold.keep(name for name in photographs(fold) if dataset.image_path(name).exists())
