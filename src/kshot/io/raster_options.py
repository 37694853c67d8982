"""What is seen of maps and scans: which bands, which plane, and which of their levels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageError, MaskError

DARKEST, BRIGHTEST = 2.0, 98.0
"""Percentiles of the levels that become black and white where a file does not say: those of QGIS."""

MAP_TILE = 1000
"""Side in pixels of the windows in which maps are read."""

Plane = Literal["sagittal", "coronal", "axial"]


@dataclass(frozen=True)
class View:
    """How maps and scans are read.

    bands: of a map, one or three, the first is 1; None: the first three, or the first of fewer. plane: of a
    scan; None: that of its own slices. tile: side in pixels of the windows in which maps are read. long_side:
    maps with a longer side are seen as if it had so many pixels; None: as they are.
    """

    bands: tuple[int, ...] | None = None
    plane: Plane | None = None
    tile: int = MAP_TILE
    long_side: int | None = None


def parse_bands(text: str) -> tuple[int, ...] | None:
    """Read `4,3,2`; nothing is None. Raises ImageError for what does not name one or three bands."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if any(not word.isdecimal() or int(word) == 0 for word in words) or len(words) not in (0, 1, 3):
        raise ImageError(
            f"--bands says '{text}'; it must be three numbers, for red, green and blue, such as 4,3,2, "
            "or one."
        )
    return tuple(map(int, words)) or None


class Levels(NamedTuple):
    """The levels that become black and white."""

    black: float
    white: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Levels":
        """Choose levels by the percentiles of what is finite among values."""
        finite = values[np.isfinite(values)]
        return cls(*np.percentile(finite, (DARKEST, BRIGHTEST)).tolist()) if finite.size else cls(0, 1)

    def to_grey(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn values into grey levels, 0 to 255; what is not a number becomes 0."""
        span = self.white - self.black or 1.0
        grey = (values.astype(np.float32) - self.black) * np.float32(255 / span)
        rounded: NDArray[np.uint8] = np.nan_to_num(grey, nan=0.0).clip(0, 255).round().astype(np.uint8)
        return rounded


def integers(values: NDArray[Any], path: Path) -> NDArray[np.integer[Any]]:
    """Give the integers that a mask's values are, whatever their type; what is not a number becomes 0.

    Raises MaskError for others, with the file's name.
    """
    if np.issubdtype(values.dtype, np.integer):
        return values
    whole: NDArray[np.integer[Any]] = np.nan_to_num(values).astype(np.int32)
    if not np.array_equal(whole, np.nan_to_num(values)):
        raise MaskError(f"Mask '{path}' has values that are no integers. Threshold it first.")
    return whole
