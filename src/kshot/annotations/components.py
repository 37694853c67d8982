"""What a mask consists of: connected components, each with its score, its run lengths and its outline."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import KshotError

MIN_COMPONENT = 16
"""Pixels below which a component is left out as a speck."""

TOLERANCE = 0.5
"""Pixels by which a polygon may leave its component's outline, to have fewer points to edit."""


@dataclass(frozen=True, eq=False)
class Component:
    """A connected piece of a mask (H, W).

    box: left, top, width, height in pixels. mask: bool, in its box only. score: its mean probability.
    """

    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    score: float

    @property
    def area(self) -> int:
        """Count its pixels."""
        return int(np.count_nonzero(self.mask))


def components(
    mask: NDArray[np.bool_], probability: NDArray[np.floating], min_area: int = MIN_COMPONENT
) -> Iterator[Component]:
    """Split a mask (H, W) into its 8-connected components of `min_area` pixels and more."""
    measure = measures()
    for region in measure.regionprops(measure.label(mask, connectivity=2)):
        if region.area >= min_area:
            rows, columns = region.slice
            box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            score = float(probability[region.slice][region.image].mean(dtype=np.float64))
            yield Component(box, region.image, score)


def run_lengths(component: Component, size: tuple[int, int]) -> list[int]:
    """Give COCO's run lengths of a component in a mask of `size`: columns first, the background's first."""
    height, width = size
    left, top, columns, rows = component.box
    strip = np.zeros((columns, height), dtype=np.int8)  # columns are rows here: COCO goes down them
    strip[:, top : top + rows] = component.mask.T
    changes = np.flatnonzero(np.diff(strip.ravel(), prepend=0, append=0)) + left * height
    lengths: list[int] = np.diff(changes, prepend=0, append=height * width).tolist()
    return lengths[:-1] if lengths[-1] == 0 else lengths


def outline(component: Component) -> list[tuple[int, int]] | None:
    """Give a component's outline as a polygon of pixels (x, y); None if one polygon cannot say what it is.

    The polygon goes through the outermost pixels' centres, as LabelMe's do.
    """
    measure = measures()
    # Just below 1, so that contours go through the pixels themselves and not between them and the background.
    contours = measure.find_contours(
        np.pad(component.mask, 1).astype(np.float64), 1 - 1e-6, fully_connected="high"
    )
    if len(contours) != 1:
        return None  # it has holes
    points = measure.approximate_polygon(np.round(contours[0]), TOLERANCE)[:-1] - 1
    if len(points) < 3:
        return None
    left, top, _, _ = component.box
    return [(left + int(x), top + int(y)) for y, x in points]


def measures() -> Any:
    """Give scikit-image's measures. Raises KshotError if it is not installed."""
    try:
        from skimage import measure
    except ImportError as error:
        raise KshotError("Writing annotations needs scikit-image: pip install 'kshot[formats]'.") from error
    return measure
