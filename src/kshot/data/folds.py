"""The novel, base and holdout classes of each fold.

PASCAL-5i (Shaban et al. 2017): fold f holds the five classes 5f … 5f + 4. COCO-20i is the interleaved one
(Nguyen & Todorovic 2019): fold f holds classes f, f + 4, …; PANet's contiguous blocks are another benchmark.
Class ids count from 0, in VOC's order and in the order of COCO's category ids.
"""

from kshot.annotations.folders import PASCAL_CLASSES as PASCAL_CLASSES
from kshot.errors import DataError

NUM_FOLDS = 4

FOLDED = ("pascal", "coco")
"""The benchmarks that have folds of base and novel classes."""

COCO_CLASSES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""COCO's names of VOC classes with another name."""

VOC_CLASSES_OF_COCO = frozenset(
    {
        "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train",
        "tv",
    }
)  # fmt: skip
"""COCO's names of VOC's classes; the other 60 are novel to models that were trained on VOC."""


def novel_classes(benchmark: str, fold: int) -> tuple[int, ...]:
    """Return the ids of a fold's novel classes, ascending. Raises DataError for another benchmark or fold."""
    _check(benchmark, fold)
    if benchmark == "pascal":
        size = len(PASCAL_CLASSES) // NUM_FOLDS
        return tuple(range(size * fold, size * (fold + 1)))
    return tuple(range(fold, len(COCO_CLASSES), NUM_FOLDS))


def novel_names(benchmark: str, fold: int) -> frozenset[str]:
    """Return VOC's and COCO's names of a fold's novel classes; none for a benchmark without folds."""
    if benchmark not in FOLDED:
        return frozenset()
    names = PASCAL_CLASSES if benchmark == "pascal" else COCO_CLASSES
    novel = {names[class_id] for class_id in novel_classes(benchmark, fold)}
    same = [{voc, coco} for voc, coco in COCO_NAMES.items()]
    return frozenset(novel.union(*(pair for pair in same if pair & novel)))


def base_classes(benchmark: str, fold: int) -> tuple[int, ...]:
    """Return the ids of a fold's base classes, ascending: the novel classes of the other folds."""
    return tuple(sorted(class_id for classes in _other_folds(benchmark, fold) for class_id in classes))


def fold_holdout_classes(benchmark: str, fold: int) -> tuple[int, ...]:
    """Return the ids of the base classes that training can exclude, to choose a checkpoint on them.

    They are every fifth class of each base fold, from its third: 3 of 15 in PASCAL-5i, 12 of 60 in COCO-20i.
    """
    others = _other_folds(benchmark, fold)
    return tuple(sorted(class_id for classes in others for class_id in classes[2::5]))


def _other_folds(benchmark: str, fold: int) -> list[tuple[int, ...]]:
    _check(benchmark, fold)
    return [novel_classes(benchmark, other) for other in range(NUM_FOLDS) if other != fold]


def _check(benchmark: str, fold: int) -> None:
    if benchmark not in FOLDED:
        raise DataError(
            f"Benchmark '{benchmark}' has no folds of base and novel classes; pascal and coco do."
        )
    if fold not in range(NUM_FOLDS):
        raise DataError(f"Fold is {fold}, but {benchmark} has folds 0 to {NUM_FOLDS - 1}.")
