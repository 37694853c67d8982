"""Connected components of a mask, each with its score, run lengths and outline."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.io.extras import import_extra

MIN_COMPONENT = 16
"""Pixels a component needs; smaller ones are skipped as specks."""

TOLERANCE = 0.5
"""Pixels by which a polygon may deviate from its component's outline, to have fewer points to edit."""


@dataclass(frozen=True, eq=False)
class Component:
    """A connected component of a mask (H, W).

    box: left, top, width, height in pixels. mask: bool, inside the box only. score: mean probability.
    """

    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    score: float

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))


def connected_components(
    mask: NDArray[np.bool_], probability: NDArray[np.floating], min_area: int = MIN_COMPONENT
) -> Iterator[Component]:
    """Yield the 8-connected components of a mask (H, W) that have `min_area` pixels or more."""
    measure = skimage_measure()
    for region in measure.regionprops(measure.label(mask, connectivity=2)):
        if region.area >= min_area:
            rows, columns = region.slice
            box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            score = float(probability[region.slice][region.image].mean(dtype=np.float64))
            yield Component(box, region.image, score)


def run_lengths(component: Component, size: tuple[int, int]) -> list[int]:
    """Return COCO's run lengths of a component in a mask of `size`: down the columns, the background's first.

    Reads only the component's columns; pycocotools would need the whole mask for each component.
    """
    height, width = size
    left, top, columns, rows = component.box
    strip = np.zeros((columns, height), dtype=np.int8)  # transposed: COCO goes down the columns
    strip[:, top : top + rows] = component.mask.T
    changes = np.flatnonzero(np.diff(strip.ravel(), prepend=0, append=0)) + left * height
    lengths: list[int] = np.diff(changes, prepend=0, append=height * width).tolist()
    return lengths[:-1] if lengths[-1] == 0 else lengths


def outline(component: Component) -> list[tuple[int, int]] | None:
    """Return a component's outline as a polygon of pixels (x, y); None if one polygon cannot represent it.

    The polygon runs through the centres of the outermost pixels, as in LabelMe.
    """
    measure = skimage_measure()
    # A level just below 1 puts contours on the pixels themselves, not between them and the background.
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


def skimage_measure() -> Any:
    """Return skimage.measure. Raises KshotError if it is not installed."""
    return import_extra("skimage.measure", "Writing annotations needs scikit-image", "formats")
