"""`kshot data check`: find all problems of a benchmark's files in one run."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kshot.data.base import Dataset
from kshot.data.benchmarks import benchmark_of, open_dataset, parts_of, read_fold
from kshot.data.coco import Coco
from kshot.data.folder import Folder
from kshot.data.sampling import Fold, needed_images
from kshot.errors import KshotError
from kshot.io.images import read_image

MIN_OBJECT = 2048
"""Number of pixels below which PFENet and BAM ignore an object; the field's lists omit most of these."""


@dataclass(frozen=True)
class ClassCount:
    """Counts of one class in one split of one fold."""

    split: str
    fold: int
    name: str
    listed: int
    usable: int
    small: int
    """Usable images with an object of fewer than 2048 px."""


@dataclass(frozen=True)
class Report:
    """All problems, one line each, and the counts of usable images."""

    problems: list[str]
    counts: list[ClassCount]


@dataclass(frozen=True)
class _Finding:
    name: str
    problems: list[str]
    sizes: dict[int, int]
    """Pixels of each usable class, by id."""


def check_data(
    data: str,
    root: Path | None,
    *,
    shots: int = 1,
    fold: int | None = None,
    split: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Read every listed image and mask of a benchmark, or of one of its folds or splits.

    Raises DataError only if there is nothing to check: a missing folder or annotation file.
    """
    dataset = open_dataset(data, root)
    folds, problems = _find_folds(dataset, data, fold, split)
    wanted: dict[str, set[int]] = {}
    if benchmark_of(data) == "folder" and isinstance(dataset, Folder):
        wanted = {name: set() for name in dataset.images}  # includes images with a broken or missing mask
    for part in folds:
        for name, class_id in part.queries:
            wanted.setdefault(name, set()).add(class_id)
    findings: dict[str, _Finding] = {}
    for finding in _inspect(dataset, wanted):
        findings[finding.name] = finding
        on_progress(len(findings), len(wanted))
    problems += [line for name in sorted(findings) for line in findings[name].problems]
    counts = [count for part in folds for count in _count(part, findings)]
    return Report(problems + _too_few(counts, shots), counts)


def _find_folds(
    dataset: Dataset, data: str, fold: int | None, split: str | None
) -> tuple[list[Fold], list[str]]:
    """Return the folds to check, and problems that prevent a check."""
    if benchmark_of(data) == "folder" and isinstance(dataset, Folder):
        scanned, broken = dataset.scan()
        return [scanned], dataset.unpaired() + broken
    folds = [read_fold(data, number, name) for name, number in _parts(data, fold, split)]
    if not isinstance(dataset, Coco):
        return folds, []
    missing = {name: dataset.missing_annotations(name) for name in {part.split for part in folds}}
    problems = [
        f"There is no {' and no '.join(files)}: nothing of the {name} split can be used."
        for name, files in sorted(missing.items())
        if files
    ]
    return [part for part in folds if not missing[part.split]], problems


def _parts(data: str, fold: int | None, split: str | None) -> list[tuple[str | None, int]]:
    splits, num_folds = parts_of(data)
    names = splits if split is None and splits else (split,)
    numbers = range(num_folds) if fold is None else [fold]
    return [(name, number) for name in names for number in numbers]


def _inspect(dataset: Dataset, wanted: dict[str, set[int]]) -> Iterator[_Finding]:
    if isinstance(dataset, Coco):
        _ = dataset.index  # read it once, before the threads need it
    with ThreadPoolExecutor() as pool:
        yield from pool.map(lambda item: _inspect_image(dataset, *item), wanted.items())


def _inspect_image(dataset: Dataset, name: str, class_ids: set[int]) -> _Finding:
    problems: list[str] = []
    sizes: dict[int, int] = {}
    shape = None
    try:
        image = read_image(dataset.image_path(name))
        shape = (image.height, image.width)
    except KshotError as error:
        problems.append(str(error))
    for class_id in sorted(class_ids):
        try:
            ground_truth = dataset.ground_truth(name, class_id)
        except KshotError as error:
            problems.append(str(error))
            continue
        if shape is not None and ground_truth.shape != shape:
            problems.append(
                f"Mask of {name} is {ground_truth.shape[1]} x {ground_truth.shape[0]} pixels, but its "
                f"image is {shape[1]} x {shape[0]}."
            )
        elif not (ground_truth == 1).any():
            problems.append(f"Mask of {name} does not show class '{dataset.class_names[class_id]}'.")
        elif shape is not None:
            sizes[class_id] = int(np.count_nonzero(ground_truth == 1))
    return _Finding(name, list(dict.fromkeys(problems)), sizes)


def _count(fold: Fold, findings: dict[str, _Finding]) -> Iterator[ClassCount]:
    for class_id, names in fold.images.items():
        sizes = [findings[name].sizes[class_id] for name in names if class_id in findings[name].sizes]
        small = sum(size < MIN_OBJECT for size in sizes)
        yield ClassCount(fold.split, fold.number, fold.class_names[class_id], len(names), len(sizes), small)


def _too_few(counts: list[ClassCount], shots: int) -> list[str]:
    return [
        f"Class '{count.name}' ({count.split}, fold {count.fold}) has {count.usable} usable "
        f"image{'s' * (count.usable != 1)}, but {needed_images(shots)}."
        for count in counts
        if count.usable < shots + 1
    ]
