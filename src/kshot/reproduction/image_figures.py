"""The paper's figures of images: correlations (Fig. 2c), both passes (Table 1), several methods (Table 4)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from kshot.errors import DataError
from kshot.io.overlays import overlay
from kshot.reproduction.correlations import DepthMap
from kshot.reproduction.layout import (
    colour_bar,
    corner_label,
    heat_map,
    image_figure,
    image_grid,
    iou_text,
    outline,
    show,
)
from kshot.reproduction.style import (
    DOUBLE_COLUMN,
    GAP,
    LINE,
    BoolMap,
    FloatMap,
    LabelMap,
    check_number,
    styled,
    typeset,
    wrap,
)

BAR = 0.5
"""Width in inches of an upright colour bar with its ticks and label."""


class PassesRow(NamedTuple):
    """One episode of `passes_figure`. Masks and maps have the size (H, W) of their image.

    ground_truth: 1 on the object, 0 elsewhere, 255 unknown. first_pass, second_pass: probabilities in [0, 1].
    """

    support: Image.Image
    support_mask: BoolMap
    query: Image.Image
    ground_truth: LabelMap
    first_pass: FloatMap
    second_pass: FloatMap
    result: BoolMap
    name: str = ""


class ComparisonRow(NamedTuple):
    """One episode of `comparison_figure`, one prediction per method. Masks have their image's size (H, W).

    ground_truth: 1 on the object, 0 elsewhere, 255 unknown.
    """

    support: Image.Image
    support_mask: BoolMap
    query: Image.Image
    ground_truth: LabelMap
    predictions: Sequence[BoolMap]
    name: str = ""


@styled
def correlation_figure(
    query: Image.Image,
    support: Image.Image,
    support_mask: BoolMap,
    heatmaps: Mapping[str, Sequence[DepthMap]],
    query_ground_truth: LabelMap | None = None,
) -> Figure:
    """Draw a query, its support in a corner, and its heat maps: a row per backbone, a column per depth.

    Colours run from 0 to the largest value of each map, which is printed in it: cosines of different depths
    have no common scale. query_ground_truth is outlined if given. Raises DataError if maps are missing.
    """
    _check_heatmaps(heatmaps)
    rows, columns = len(heatmaps), len(next(iter(heatmaps.values())))
    span = min(rows, 2)  # the query is as high as two rows of maps
    share_headings = len({tuple(one.depth for one in row) for row in heatmaps.values()}) == 1
    gap = GAP if share_headings else LINE + 2 * GAP
    aspect = query.height / query.width
    labels = [wrap(typeset(label), DOUBLE_COLUMN / (columns + span + 1) * aspect) for label in heatmaps]
    side = LINE * max(label.count("\n") + 1 for label in labels)
    width = (DOUBLE_COLUMN - side - BAR - (columns + 2) * GAP - (span - 1) * gap / aspect) / (columns + span)
    height = width * aspect
    figure = image_figure(DOUBLE_COLUMN, rows * (height + gap) + (LINE + GAP if share_headings else 0))
    ratios = (span + (span - 1) * gap / height, *[1] * columns)
    grid = figure.add_gridspec(rows, 1 + columns, width_ratios=ratios)
    large = figure.add_subplot(grid[:span, 0])
    show(large, query)
    outline(large, query_ground_truth)
    _draw_inset(large, support, support_mask, query_ground_truth)
    maps = [[figure.add_subplot(grid[row, 1 + column]) for column in range(columns)] for row in range(rows)]
    for index, (label, row) in enumerate(zip(labels, heatmaps.values(), strict=True)):
        maps[index][0].set_ylabel(label)
        for axes, (depth, values) in zip(maps[index], row, strict=True):
            show(axes, heat_map(values, float(values.max())))
            outline(axes, query_ground_truth)
            corner_label(axes, f"max {values.max():.2f}")
            if index == 0 or not share_headings:
                axes.set_title(wrap(depth, width))
    colour_bar(
        figure,
        [axes for row in maps for axes in row],
        "right",
        "Correlation",
        ("0", "max"),
        rows * height,
    )
    return figure


def _check_heatmaps(heatmaps: Mapping[str, Sequence[DepthMap]]) -> None:
    check_number("backbones", len(heatmaps))
    numbers = {label: len(row) for label, row in heatmaps.items()}
    if len(set(numbers.values())) != 1 or 0 in numbers.values():
        raise DataError(
            f"All backbones need the same number of heat maps, at least one, but they have {numbers}."
        )


def _draw_inset(axes: Axes, support: Image.Image, mask: BoolMap, query_ground_truth: LabelMap | None) -> None:
    """Draw the support into the corner of the query that hides the least of the object."""
    width, height = axes.images[0].get_size()[::-1]
    scale = 0.4 * min(width, height) / max(support.size)
    inner = support.width * scale / width, support.height * scale / height
    margin = 0.02
    at_right, at_bottom = _emptiest_corner(query_ground_truth, *inner)
    x = 1 - inner[0] - margin if at_right else margin
    y = margin if at_bottom else 1 - inner[1] - margin
    inset = axes.inset_axes((x, y, *inner))
    show(inset, overlay(support, mask))
    outline(inset, mask)
    inset.spines[:].set(visible=True, edgecolor="white", linewidth=1.5)


def _emptiest_corner(ground_truth: LabelMap | None, x_share: float, y_share: float) -> tuple[bool, bool]:
    """Return the corner, (at the right?, at the bottom?), where a box of these shares covers least object."""
    corners = [(True, True), (False, True), (True, False), (False, False)]
    if ground_truth is None:
        return corners[0]
    height, width = (
        round(share * n) for share, n in zip((y_share, x_share), ground_truth.shape, strict=True)
    )

    def covered(corner: tuple[bool, bool]) -> int:
        columns = slice(-width, None) if corner[0] else slice(width)
        rows = slice(-height, None) if corner[1] else slice(height)
        return int(np.count_nonzero(ground_truth[rows, columns] == 1))

    return min(corners, key=covered)


@styled
def passes_figure(rows: Sequence[PassesRow]) -> Figure:
    """Draw one row per episode: support, query with its ground truth, both passes, result with its IoU.

    The passes are foreground probabilities, as colours over the query. Raises DataError without episodes.
    """
    check_number("episodes", len(rows))
    images = [
        [
            overlay(row.support, row.support_mask),
            row.query,
            heat_map(row.first_pass, 1, row.query),
            heat_map(row.second_pass, 1, row.query),
            overlay(row.query, row.result),
        ]
        for row in rows
    ]
    headings = ("Support", "Query and ground truth", "1st pass (S → Q)", "2nd pass (Q → Q)", "Result")
    figure, grid = image_grid(images, headings, [row.name for row in rows], footer=2 * LINE + 3 * GAP)
    for row, axes in zip(rows, grid, strict=True):
        outline(axes[0], row.support_mask)
        for one in axes[1:4]:
            outline(one, row.ground_truth)
        outline(axes[4], row.result)
        corner_label(axes[4], iou_text(row.result, row.ground_truth))
    passes = [one for axes in grid for one in axes[2:4]]
    colour_bar(figure, passes, "bottom", "Foreground probability", ("0", "0.5", "1"), DOUBLE_COLUMN * 2 / 5)
    return figure


@styled
def comparison_figure(rows: Sequence[ComparisonRow], method_names: Sequence[str]) -> Figure:
    """Draw one row per episode: support, query with its ground truth in red, each method's mask with its IoU.

    Raises DataError without episodes or methods, or if a row has another number of predictions.
    """
    check_number("episodes", len(rows))
    check_number("methods", len(method_names))
    for index, row in enumerate(rows):
        if len(row.predictions) != len(method_names):
            raise DataError(
                f"Row {index} has {len(row.predictions)} predictions, but there are {len(method_names)} "
                f"methods ({', '.join(method_names)}). Give one prediction per method."
            )
    pairs = [_images_with_masks(row) for row in rows]
    images = [[overlay(image, mask) for image, mask in row] for row in pairs]
    headings = ("Support", "Query and ground truth", *method_names)
    figure, grid = image_grid(images, headings, [row.name for row in rows])
    for row, masked, axes in zip(rows, pairs, grid, strict=True):
        for one, (_, mask) in zip(axes, masked, strict=True):
            outline(one, mask)
        for one, prediction in zip(axes[2:], row.predictions, strict=True):
            corner_label(one, iou_text(prediction, row.ground_truth))
    return figure


def _images_with_masks(row: ComparisonRow) -> list[tuple[Image.Image, BoolMap]]:
    masks = (np.asarray(row.ground_truth == 1), *row.predictions)
    return [(row.support, row.support_mask), *((row.query, mask) for mask in masks)]
