"""Options for GeoTIFFs and medical volumes: bands, plane, tile, and the values shown as black and white."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ImageError, MaskError

PERCENTILES = 2.0, 98.0
"""Percentiles of the values that become black and white if a file names none: QGIS's defaults."""

GEOTIFF_TILE = 1000
"""Default side in pixels of the windows in which GeoTIFFs are read."""

Plane = Literal["sagittal", "coronal", "axial"]


@dataclass(frozen=True)
class RasterOptions:
    """How GeoTIFFs and volumes are read.

    bands: of a GeoTIFF, one or three, counted from 1; None: the first three, or the first of fewer.
    plane: of a volume; None: the plane of its stored slices. tile: side in pixels of a GeoTIFF's windows.
    long_side: a GeoTIFF with a longer side is scaled down to it; None: no scaling.
    """

    bands: tuple[int, ...] | None = None
    plane: Plane | None = None
    tile: int = GEOTIFF_TILE
    long_side: int | None = None


def parse_bands(text: str) -> tuple[int, ...] | None:
    """Parse bands such as `4,3,2`; empty text is None. Raises ImageError unless there are one or three."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if any(not word.isdecimal() or int(word) == 0 for word in words) or len(words) not in (0, 1, 3):
        raise ImageError(
            f"--bands is '{text}'; it must be three numbers, for red, green and blue, such as 4,3,2, or one."
        )
    return tuple(map(int, words)) or None


class WindowLevel(NamedTuple):
    """The values shown as black and as white."""

    black: float
    white: float

    @classmethod
    def from_percentiles(cls, values: NDArray[Any]) -> "WindowLevel":
        """Return the PERCENTILES of the finite values; (0, 1) if there are none."""
        finite = values[np.isfinite(values)]
        return cls(*np.percentile(finite, PERCENTILES).tolist()) if finite.size else cls(0, 1)

    def to_grey(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return grey levels 0 to 255 of the same shape; NaN becomes 0."""
        span = self.white - self.black or 1.0
        grey = (values.astype(np.float32) - self.black) * np.float32(255 / span)
        rounded: NDArray[np.uint8] = np.nan_to_num(grey, nan=0.0).clip(0, 255).round().astype(np.uint8)
        return rounded


def to_integers(values: NDArray[Any], path: Path) -> NDArray[np.integer[Any]]:
    """Return a mask's values as integers, whatever their type; NaN becomes 0.

    Raises MaskError, which names `path`, for values that are not whole numbers.
    """
    if np.issubdtype(values.dtype, np.integer):
        return values
    whole: NDArray[np.integer[Any]] = np.nan_to_num(values).astype(np.int32)
    if not np.array_equal(whole, np.nan_to_num(values)):
        raise MaskError(f"Mask '{path}' has values that are no integers. Threshold it first.")
    return whole
