"""Figures made of images: grids with headings and row names, heat maps, outlines and labels."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from PIL import Image

from kshot.evaluation.metrics import count_pixels
from kshot.reproduction.style import (
    DOUBLE_COLUMN,
    GAP,
    LINE,
    SINGLE_COLUMN,
    BoolMap,
    FloatMap,
    LabelMap,
    wrap,
)

COLOUR_MAP = "viridis"
BAR_THICKNESS = 0.08
"""Thickness of a colour bar in inches."""
UNDERLAY = 0.45
"""Contrast of the image under a heat map, from 0 to 1."""

Side = Literal["right", "bottom"]


def image_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, with gaps of GAP between images."""
    engine = ConstrainedLayoutEngine(w_pad=GAP / 2, h_pad=GAP / 2, wspace=0, hspace=0)
    return Figure(figsize=(width, height), layout=engine)


def image_grid(
    images: Sequence[Sequence[Image.Image]], headings: Sequence[str], names: Sequence[str], footer: float = 0
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with a heading for each column and a name for each row, and the axes of its images.

    footer: height in inches to reserve below the images, for a colour bar.
    """
    width = SINGLE_COLUMN if len(headings) <= 3 else DOUBLE_COLUMN
    cell = (width - 2 * LINE * any(names)) / len(headings) - GAP
    heights = [cell * max(image.height / max(image.size) for image in row) for row in images]
    titles = [wrap(heading, cell) for heading in headings]
    header = LINE * max(title.count("\n") + 1 for title in titles)
    figure = image_figure(width, header + sum(heights) + GAP * (len(heights) + 1) + footer)
    grid = figure.subplots(len(images), len(headings), squeeze=False, height_ratios=heights)
    for axes, image in zip(grid.flat, (image for row in images for image in row), strict=True):
        show(axes, image)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    for axes, name, height in zip(grid[:, 0], names, heights, strict=True):
        axes.set_ylabel(wrap(name, height))
    figure.align_titles()
    figure.align_ylabels()
    return figure, grid.tolist()


def show(axes: Axes, image: Image.Image) -> None:
    """Draw an image without frame or ticks; the axes count its pixels."""
    axes.imshow(np.asarray(image))
    axes.autoscale(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def heat_map(values: FloatMap, largest: float, over: Image.Image | None = None) -> Image.Image:
    """Colour values (H, W) from 0 to `largest`; `over` adds the light and dark of an image."""
    colours = colormaps[COLOUR_MAP](Normalize(0, largest or 1)(values))[..., :3]
    if over is not None:
        grey = np.asarray(over.convert("L"), dtype=np.float64)[..., None] / 255
        colours = (colours + UNDERLAY * (grey - grey.mean())).clip(0, 1)
    return Image.fromarray((255 * colours).round().astype(np.uint8))


def colour_bar(
    figure: Figure, beside: Sequence[Axes], location: Side, label: str, ticks: Sequence[str], length: float
) -> None:
    """Draw the colours of `heat_map` beside some axes, about `length` inches long, with even ticks."""
    colours = ScalarMappable(Normalize(0, 1), COLOUR_MAP)
    bar = figure.colorbar(colours, ax=beside, location=location, aspect=length / BAR_THICKNESS, pad=0.01)
    bar.set_ticks(list(np.linspace(0, 1, len(ticks))), labels=list(ticks))
    bar.set_label(label, labelpad=2)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, pad=2)


def outline(axes: Axes, mask: LabelMap | None) -> None:
    """Draw the outline of the pixels that are 1 in a mask (H, W): white with a dark rim, to show on white."""
    if mask is None or not 0 < np.count_nonzero(mask == 1) < mask.size:
        return
    lines = axes.contour((mask == 1).astype(float), levels=[0.5], colors="white", linewidths=0.6)
    lines.set_path_effects([withStroke(linewidth=1.2, foreground="black")])


def corner_label(axes: Axes, text: str) -> None:
    """Write into an image's lower left corner."""
    box = {"facecolor": "black", "alpha": 0.65, "linewidth": 0, "pad": 1.2}
    axes.annotate(
        text, (0, 0), (2.5, 2.5), "axes fraction", "offset points", va="bottom", color="white", bbox=box
    )


def iou_text(prediction: BoolMap, ground_truth: LabelMap) -> str:
    """Return the IoU of a prediction in percent, as text."""
    counts = count_pixels(prediction, np.asarray(ground_truth, dtype=np.uint8))
    return f"IoU {100 * counts.intersection / max(counts.union, 1):.0f}"
