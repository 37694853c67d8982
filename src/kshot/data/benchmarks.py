"""The entry point to benchmarks: their episode pairs and their files by name, or by the path of a folder."""

from pathlib import Path

from kshot.data.base import Dataset
from kshot.data.coco import Coco, coco_fold
from kshot.data.folder import COCO_MINI, Folder, coco_mini_fold
from kshot.data.folds import COCO_CLASSES
from kshot.data.fss1000 import FSS1000, fss_fold
from kshot.data.pascal import Pascal, pascal_fold
from kshot.data.sampling import Fold
from kshot.errors import DataError

BENCHMARKS = ("pascal", "coco", "fss1000", COCO_MINI)


def benchmark_of(data: str) -> str:
    """Return the benchmark that `--data` names: one of BENCHMARKS, or "folder" for a user folder."""
    if data in BENCHMARKS:
        return data
    if Path(data).is_dir():
        return "folder"
    raise DataError(f"There is no benchmark and no folder '{data}'. Benchmarks: {', '.join(BENCHMARKS)}.")


def read_fold(data: str, number: int = 0, split: str | None = None) -> Fold:
    """Return the pairs that a fold's episodes are drawn from; reads no files except for a user folder.

    split: default is the test split (val; FSS-1000: test).
    Raises DataError for a fold or split that the benchmark does not have.
    """
    benchmark = benchmark_of(data)
    if benchmark == "pascal":
        return pascal_fold(number, split or "val")
    if benchmark == "coco":
        return coco_fold(number, split or "val")
    if number != 0:
        raise DataError(f"Fold is {number}, but {data} has no folds. Leave out --fold.")
    if benchmark == "fss1000":
        return fss_fold(split or "test")
    if split is not None:
        raise DataError(f"Split is '{split}', but {data} has no splits. Leave out --split.")
    return coco_mini_fold() if benchmark == COCO_MINI else Folder(Path(data)).fold()


def open_dataset(data: str, root: Path | None) -> Dataset:
    """Return a benchmark's files. Raises DataError that names the missing folders."""
    benchmark = benchmark_of(data)
    if benchmark == "folder":
        return Folder(Path(data))
    if root is None:
        raise DataError(f"The folder of {data} is missing. Give it as --root DIR.")
    if not root.is_dir():
        raise DataError(f"There is no folder {root}. Give the folder of {data} as --root.")
    match benchmark:
        case "pascal":
            return Pascal(root)
        case "coco":
            return Coco(root)
        case "fss1000":
            return FSS1000(root)
        case _:
            return Folder(root, COCO_CLASSES)
