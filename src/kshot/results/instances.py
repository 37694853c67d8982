"""Instances: the connected parts of a class's mask, each with its box, score, run lengths and outlines."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeFloat, PositiveInt, ValidationError

from kshot.errors import KshotError
from kshot.io.extras import import_extra
from kshot.io.name_values import setting_fault, split_commas

MIN_COMPONENT = 16
"""Pixels an instance needs; smaller ones are skipped as specks."""

TOLERANCE = 0.5
"""Pixels by which a polygon may deviate from its instance's outline, to have fewer points to edit."""

MIN_DEPTH = 0.15
"""How much narrower than the smaller of two touching items their neck must be; one pixel at least."""

Ring = list[tuple[int, int]]
"""A closed line through pixels (x, y), whose first point is not repeated at the end."""

Found = tuple[tuple[slice, slice], NDArray[np.bool_]]
"""Rows and columns of a part of a mask, and the part itself, there."""


class InstanceOptions(BaseModel, frozen=True, extra="forbid"):
    """How instances are found in a mask.

    min_area: pixels that one needs. split: cut touching items of round shape apart, by a watershed on the
    distance to the background. tolerance: pixels by which outlines may deviate.
    """

    min_area: PositiveInt = MIN_COMPONENT
    split: bool = False
    tolerance: NonNegativeFloat = TOLERANCE

    @classmethod
    def parse(cls, text: str) -> "InstanceOptions":
        """Parse `split,min_area=50,tolerance=1`. Raises KshotError for another name or a wrong value."""
        pairs = [part.partition("=") for part in split_commas(text)]
        given = {name.strip(): value.strip() if equals else "true" for name, equals, value in pairs}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise KshotError(f"--instances is '{text}'. {setting_fault(error, cls.model_fields)}") from error


DEFAULT_INSTANCES = InstanceOptions()


@dataclass(frozen=True, eq=False)
class Instance:
    """A connected part of a class's mask, or one item of it that was split off.

    box: left, top, right and bottom in pixels, the last two exclusive. area: pixels. score: mean probability
    in [0, 1]. mask: bool, inside the box only. id: 1, 2, … in the image. tolerance: of the outlines, in
    pixels.
    """

    class_name: str
    box: tuple[int, int, int, int]
    area: int
    score: float
    mask: NDArray[np.bool_]
    id: int = 1
    tolerance: float = TOLERANCE

    @cached_property
    def rings(self) -> list[Ring]:
        """The outline and, after it, the borders of the holes; they run through the outermost pixels.

        Rings of what is one pixel wide have fewer than three points. Raises KshotError if scikit-image is not
        installed.
        """
        measure = skimage("measure")
        # A level just below 1 puts contours on the pixels themselves, not between them and the background.
        padded = np.pad(self.mask, 1).astype(np.float64)
        contours = measure.find_contours(padded, 1 - 1e-6, fully_connected="high")
        contours.sort(key=lambda contour: -np.prod(np.ptp(contour, axis=0) + 1))  # the outline is the largest
        left, top, _, _ = self.box
        return [
            [(left - 1 + int(x), top - 1 + int(y)) for y, x in self._simplify(contour)]
            for contour in contours
        ]

    @cached_property
    def polygon(self) -> Ring | None:
        """The outline as (x, y) pixels; None if the part has holes or is too thin for one polygon.

        It runs through the centres of the outermost pixels, as in LabelMe.
        """
        return self.rings[0] if len(self.rings) == 1 and len(self.rings[0]) >= 3 else None

    def _simplify(self, contour: NDArray[np.float64]) -> NDArray[np.float64]:
        simple: NDArray[np.float64] = skimage("measure").approximate_polygon(
            np.round(contour), self.tolerance
        )
        return simple[:-1] if len(simple) > 1 else simple


def find_parts(mask: NDArray[np.bool_], options: InstanceOptions) -> Iterator[Found]:
    """Yield the 8-connected parts of a mask (H, W) that are large enough, split if that is asked for."""
    measure = skimage("measure")
    for region in measure.regionprops(measure.label(mask, connectivity=2)):
        if region.area < options.min_area:
            continue
        rows, columns = region.slice
        if not options.split:
            yield (rows, columns), region.image
            continue
        for item in measure.regionprops(split_items(region.image)):
            item_rows, item_columns = item.slice
            yield (_shifted(item_rows, rows), _shifted(item_columns, columns)), item.image


def split_items(mask: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
    """Return the items of one connected part as labels 1, 2, …; one label if it has no neck.

    Watershed on the distance to the background. An item is a maximum of the distance that is higher, by
    MIN_DEPTH and by a pixel, than the neck to a higher one.
    """
    distance = skimage("scipy.ndimage").distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    # Linear for small items, and logarithmic for large ones: a difference of 1 is the one or the other limit.
    radius = 1 / MIN_DEPTH
    height = np.where(
        distance < radius, distance, radius * (1 + np.log(np.maximum(distance, radius) / radius))
    )
    peaks = skimage("morphology").h_maxima(height, 1)
    markers = skimage("measure").label(peaks, connectivity=2)
    labels: NDArray[np.integer[Any]] = skimage("segmentation").watershed(
        -distance, markers, mask=mask, connectivity=2
    )
    return labels if labels.any() else mask.astype(np.int32)


def run_lengths(instance: Instance, size: tuple[int, int]) -> list[int]:
    """Return COCO's run lengths of an instance in a mask of `size`: down the columns, the background's first.

    Reads only the instance's columns; pycocotools would need the whole mask for each instance.
    """
    left, top, _, _ = instance.box
    return _runs(instance.mask.T, left, top, size)


def row_run_lengths(instance: Instance, size: tuple[int, int]) -> list[int]:
    """Return an instance's run lengths in a mask of `size`: along the rows, the background's first."""
    left, top, _, _ = instance.box
    return _runs(instance.mask, top, left, size[::-1])


def _runs(piece: NDArray[np.bool_], first: int, start: int, size: tuple[int, int]) -> list[int]:
    """Return the run lengths of lines of size[0] values, of which `piece` lies at (first, start)."""
    length, count = size
    strip = np.zeros((len(piece), length), dtype=np.int8)
    strip[:, start : start + piece.shape[1]] = piece
    changes = np.flatnonzero(np.diff(strip.ravel(), prepend=0, append=0)) + first * length
    lengths: list[int] = np.diff(changes, prepend=0, append=length * count).tolist()
    return lengths[:-1] if lengths[-1] == 0 else lengths


def _shifted(inner: slice, outer: slice) -> slice:
    return slice(inner.start + outer.start, inner.stop + outer.start)


def skimage(module: str) -> Any:
    """Return a module of scikit-image, or of SciPy, which comes with it. Raises KshotError without it."""
    name = module if module.startswith("scipy") else f"skimage.{module}"
    return import_extra(name, "Instances need scikit-image", "formats")
