"""Pages of pictures: placed in inches, with headings, outlines, badges and colour bars."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from kshot.evaluation.metrics import count_pixels
from kshot.reproduction.style import (
    DOUBLE_COLUMN,
    GAP,
    LINE,
    SINGLE_COLUMN,
    BoolMap,
    Box,
    FloatMap,
    TruthMap,
    wrap,
)

HEAT = "viridis"
SHINE = 0.45
"""How much of the picture under a heat map shows."""


class Page:
    """A figure on which things are placed in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add empty axes."""
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def picture(self, picture: Image.Image, left: float, top: float, width: float, height: float) -> Axes:
        """Add a picture; the axes count its pixels."""
        axes = self.axes(left, top, width, height)
        axes.imshow(np.asarray(picture), aspect="auto")
        axes.autoscale(False)
        axes.set_axis_off()
        return axes

    def heading(self, text: str, left: float, bottom: float, width: float) -> None:
        """Write a column's heading above `bottom`, in as many lines as it takes."""
        x, y = (left + width / 2) / self.width, 1 - (bottom - 1.3 * GAP) / self.height
        self.figure.text(x, y, wrap(text, width), ha="center", va="baseline", linespacing=1.1)

    def side(self, text: str, right: float, top: float, height: float) -> None:
        """Write a row's name, already wrapped, upwards and to the left of `right`."""
        x, y = right / self.width, 1 - (top + height / 2) / self.height
        style: Any = {"ha": "right", "va": "center", "multialignment": "center", "linespacing": 1.1}
        self.figure.text(x, y, text, rotation=90, **style)


def header_height(headings: Sequence[str], width: float) -> float:
    """Say how high the headings of columns of some width are."""
    return GAP + LINE * max(wrap(heading, width).count("\n") + 1 for heading in headings)


def side_width(names: Sequence[str]) -> float:
    """Say how wide the names of rows are, already wrapped and written upwards."""
    return GAP + max(LINE * (name.count("\n") + 1) + GAP if name else 0 for name in names)


class Sheet:
    """Rows and columns of pictures that keep their aspect, each as wide or as high as its column.

    axes: of each row's pictures. lefts: where columns begin. footer: height left free below.
    """

    def __init__(
        self,
        pictures: Sequence[Sequence[Image.Image]],
        headings: Sequence[str],
        names: Sequence[str],
        footer: float = 0,
    ) -> None:
        page_width = SINGLE_COLUMN if len(headings) <= 3 else DOUBLE_COLUMN
        heights = _row_heights(pictures, 0.9 * page_width / len(headings))
        names = [wrap(name, height) for name, height in zip(names, heights, strict=True)]
        margin = side_width(names)
        self.cell = (page_width - margin) / len(headings) - GAP
        self.lefts = [margin + column * (self.cell + GAP) for column in range(len(headings))]
        heights = _row_heights(pictures, self.cell)
        header = header_height(headings, self.cell)
        self.page = Page(page_width, header + sum(heights) + GAP * len(heights) + footer)
        for heading, left in zip(headings, self.lefts, strict=True):
            self.page.heading(heading, left, header, self.cell)
        self.axes: list[list[Axes]] = []
        top = header
        for row, height, name in zip(pictures, heights, names, strict=True):
            self.axes.append([self._put(*item, top, height) for item in zip(row, self.lefts, strict=True)])
            self.page.side(name, margin - GAP, top, height)
            top += height + GAP

    def _put(self, picture: Image.Image, left: float, top: float, row_height: float) -> Axes:
        width, height = fit_square(picture, self.cell)
        x, y = left + (self.cell - width) / 2, top + (row_height - height) / 2
        return self.page.picture(picture, x, y, width, height)


def fit_square(picture: Image.Image, side: float) -> tuple[float, float]:
    """Give the width and height of a picture that fits a square."""
    scale = side / max(picture.size)
    return picture.width * scale, picture.height * scale


def _row_heights(pictures: Sequence[Sequence[Image.Image]], cell: float) -> list[float]:
    return [max(fit_square(picture, cell)[1] for picture in row) for row in pictures]


def heat(values: FloatMap, largest: float, over: Image.Image | None = None) -> Image.Image:
    """Colour values (H, W) from 0 to `largest`; `over` a picture, its light and dark are added, evenly."""
    colours = colormaps[HEAT](Normalize(0, largest or 1)(values))[..., :3]
    if over is not None:
        grey = np.asarray(over.convert("L"), dtype=np.float64)[..., None] / 255
        colours = (colours + SHINE * (grey - grey.mean())).clip(0, 1)
    return Image.fromarray((255 * colours).round().astype(np.uint8))


def colour_bar(page: Page, box: Box, label: str, ticks: Sequence[str]) -> None:
    """Draw the colours of `heat` along the box's longer side, evenly ticked."""
    axes, scale = page.axes(*box), ScalarMappable(Normalize(0, 1), HEAT)
    orientation: Literal["horizontal", "vertical"] = "horizontal" if box[2] > box[3] else "vertical"
    bar = page.figure.colorbar(scale, cax=axes, orientation=orientation)
    bar.set_ticks(list(np.linspace(0, 1, len(ticks))), labels=list(ticks))
    bar.set_label(label, labelpad=2)
    bar.outline.set_visible(False)
    axes.tick_params(length=0, pad=2)


def outline(axes: Axes, mask: TruthMap | None) -> None:
    """Draw the outline of what is 1 in a mask (H, W): white, with a dark rim that shows on white too."""
    if mask is None or not 0 < np.count_nonzero(mask == 1) < mask.size:
        return
    lines = axes.contour((mask == 1).astype(float), levels=[0.5], colors="white", linewidths=0.6)
    lines.set_path_effects([withStroke(linewidth=1.2, foreground="black")])


def badge(axes: Axes, text: str) -> None:
    """Write into a picture's lower left corner."""
    box = {"facecolor": "black", "alpha": 0.65, "linewidth": 0, "pad": 1.2}
    axes.annotate(
        text, (0, 0), (2.5, 2.5), "axes fraction", "offset points", va="bottom", color="white", bbox=box
    )


def iou_text(prediction: BoolMap, ground_truth: TruthMap) -> str:
    """Say the IoU of a prediction in percent."""
    counts = count_pixels(prediction, np.asarray(ground_truth, dtype=np.uint8))
    return f"IoU {100 * counts.intersection / max(counts.union, 1):.0f}"
