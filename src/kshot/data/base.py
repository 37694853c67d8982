"""The interface of a benchmark on disk: images by name, and the ground truth of each class in them."""

from pathlib import Path
from typing import Protocol

from kshot.types import GroundTruth


class Dataset(Protocol):
    """A benchmark's files.

    class_names: by class id. Both readers raise ImageError, MaskError or DataError that names the file.
    """

    class_names: tuple[str, ...]

    def image_path(self, name: str) -> Path:
        """Return the path of an image, which may not exist."""

    def ground_truth(self, name: str, class_id: int) -> GroundTruth:
        """Return the mask of a class in an image, in the image's size."""

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Return the ids of all classes in an image, however small their objects, ascending."""
