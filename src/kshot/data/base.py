"""The interface of a benchmark on disk: images by name, and the ground truth of each class in them."""

from pathlib import Path
from typing import ClassVar, Protocol

from kshot.data.sampling import Fold
from kshot.errors import DataError
from kshot.plugins import Plugins
from kshot.types import GroundTruth


class Dataset(Protocol):
    """Images and their ground truth.

    class_names: by class id. Both readers raise ImageError, MaskError or DataError that names the file.
    """

    class_names: tuple[str, ...]

    def image_path(self, name: str) -> Path:
        """Return the path of an image, which may not exist."""

    def ground_truth(self, name: str, class_id: int) -> GroundTruth:
        """Return the mask of a class in an image, in the image's size."""

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Return the ids of all classes in an image, however small their objects, ascending."""


class Benchmark(Dataset, Protocol):
    """A dataset with lists of the images that episodes are drawn from; see `register_dataset`.

    Subclass it to inherit the defaults.
    """

    splits: ClassVar[tuple[str, ...]] = ()
    """Names of the lists: the first is for training, the last for the test. Empty: there is one list."""
    num_folds: ClassVar[int] = 1

    def __init__(self, root: Path) -> None:
        """Open the files in `root`. Raises DataError that names what is missing."""

    @staticmethod
    def read_fold(number: int, split: str) -> Fold:
        """Return the pairs of a fold and a split ("" if there is one list), without reading images."""
        raise NotImplementedError


DATASETS: Plugins[type[Benchmark]] = Plugins(
    "dataset",
    "kshot.datasets",
    {
        "pascal": "kshot.data.pascal",
        "coco": "kshot.data.coco",
        "fss1000": "kshot.data.fss1000",
        "coco-mini-60": "kshot.data.folder",
    },
    DataError,
)
"""Benchmarks by name."""

register_dataset = DATASETS.register
