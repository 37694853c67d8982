"""What every benchmark on disk offers: photographs by name, and where a class is in them."""

from pathlib import Path
from typing import Protocol

from kshot.types import GroundTruth


class Dataset(Protocol):
    """A benchmark's files: photographs by name, and the ground truth of one class in each.

    class_names: by class id. Both methods raise ImageError, MaskError or DataError that names the file.
    """

    class_names: tuple[str, ...]

    def image_path(self, name: str) -> Path:
        """Give the place of a photograph, whether it exists or not."""

    def ground_truth(self, name: str, class_id: int) -> GroundTruth:
        """Read where a class is in a photograph, in the photograph's size."""

    def classes_in(self, name: str) -> tuple[int, ...]:
        """Give the ids of all classes that a photograph shows, however small, ascending."""
