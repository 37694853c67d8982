"""The entry point to benchmarks: their episode pairs and their files by name, or by the path of a folder."""

from pathlib import Path

from kshot.data.base import DATASETS, Dataset
from kshot.data.folder import Folder
from kshot.data.sampling import Fold
from kshot.errors import DataError


def benchmark_of(data: str) -> str:
    """Return the benchmark that `--data` names: one of DATASETS, or "folder" for a user folder."""
    if data in DATASETS:
        return data
    if Path(data).is_dir():
        return "folder"
    raise DataError(f"There is no benchmark and no folder '{data}'. Benchmarks: {', '.join(DATASETS)}.")


def parts_of(data: str) -> tuple[tuple[str, ...], int]:
    """Return the names of a benchmark's splits, and its number of folds."""
    kind = Folder if benchmark_of(data) == "folder" else DATASETS[data]
    return kind.splits, kind.num_folds


def read_fold(data: str, number: int = 0, split: str | None = None) -> Fold:
    """Return the pairs that a fold's episodes are drawn from; reads no files except for a user folder.

    split: default is the test split (val; FSS-1000: test).
    Raises DataError for a fold or split that the benchmark does not have.
    """
    splits, num_folds = parts_of(data)
    if number not in range(num_folds):
        allowed = f"folds 0 to {num_folds - 1}" if num_folds > 1 else "no folds. Leave out --fold"
        raise DataError(f"Fold is {number}, but {data} has {allowed}.")
    if split not in (None, *splits):
        allowed = f"only {', '.join(splits)}" if splits else "no splits. Leave out --split"
        raise DataError(f"Split is '{split}', but {data} has {allowed}.")
    if benchmark_of(data) == "folder":
        return Folder(Path(data)).fold()
    return DATASETS[data].read_fold(number, split or (splits[-1] if splits else ""))


def open_dataset(data: str, root: str | Path | None) -> Dataset:
    """Return a benchmark's files. Raises DataError that names the missing folders."""
    if benchmark_of(data) == "folder":
        return Folder(Path(data))
    if root is None:
        raise DataError(f"The folder of {data} is missing. Give it as --root DIR.")
    if not Path(root).is_dir():
        raise DataError(f"There is no folder {root}. Give the folder of {data} as --root.")
    return DATASETS[data](Path(root))
