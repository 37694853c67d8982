"""The paper's pictures: correlations (Fig. 2c), both passes (Table 1), methods side by side (Table 4)."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from kshot.errors import DataError
from kshot.io.overlays import overlay
from kshot.reproduction.correlations import DepthMap
from kshot.reproduction.page import (
    Page,
    Sheet,
    badge,
    colour_bar,
    fit_square,
    header_height,
    heat,
    iou_text,
    outline,
    side_width,
)
from kshot.reproduction.style import (
    DOUBLE_COLUMN,
    GAP,
    LINE,
    BoolMap,
    Box,
    FloatMap,
    TruthMap,
    check_number,
    styled,
    typeset,
    wrap,
)


class PassesRow(NamedTuple):
    """One episode of `passes_figure`. Masks and maps have their picture's size (H, W).

    ground_truth: 1 on the object, 0 elsewhere, 255 unknown. first_pass, second_pass: probabilities in [0, 1].
    """

    support: Image.Image
    support_mask: BoolMap
    query: Image.Image
    ground_truth: TruthMap
    first_pass: FloatMap
    second_pass: FloatMap
    result: BoolMap
    name: str = ""


class PanelRow(NamedTuple):
    """One episode of `panels_figure`. Masks have their picture's size (H, W); one prediction a method.

    ground_truth: 1 on the object, 0 elsewhere, 255 unknown.
    """

    support: Image.Image
    support_mask: BoolMap
    query: Image.Image
    ground_truth: TruthMap
    predictions: Sequence[BoolMap]
    name: str = ""


@styled
def correlation_figure(
    query: Image.Image,
    support: Image.Image,
    support_mask: BoolMap,
    heatmaps: Mapping[str, Sequence[DepthMap]],
    query_truth: TruthMap | None = None,
) -> Figure:
    """Draw a query with its support in a corner, and its heat maps: a row a backbone, a column a depth.

    Colours run from 0 to each map's own largest value, which is printed in it: what tells object and
    background apart is their ratio, and cosines of different depths have no common scale.
    query_truth: outlined if given. Raises DataError if maps are missing.
    """
    _check_heatmaps(heatmaps)
    depths = {label: [m.depth for m in row] for label, row in heatmaps.items()}
    aspect, columns, span = query.width / query.height, len(next(iter(depths.values()))), min(len(depths), 2)
    bar, about = 0.45, 0.9 * DOUBLE_COLUMN / (columns + span + 1)
    labels = [wrap(typeset(label), about / aspect) for label in depths]
    side = side_width(labels)
    free = DOUBLE_COLUMN - side - bar - (columns + 1) * GAP
    headings = [depth for row in depths.values() for depth in row]
    header = header_height(headings, free / (columns + span) - LINE)
    between = GAP if len(set(map(tuple, depths.values()))) == 1 else header + GAP
    # The query is `span` maps and the gaps between them high, and as wide as its aspect says.
    extra = (span - 1) * between * aspect
    width = (free - extra) / (columns + span)
    height, large = width / aspect, span * width + extra
    bottom = header + len(depths) * (height + between) - between
    page = Page(DOUBLE_COLUMN, bottom + GAP)
    box = GAP, header, large, large / aspect
    outline(page.picture(query, *box), query_truth)
    _draw_inset(page, box, support, support_mask, query_truth)
    for index, (label, row) in enumerate(zip(labels, heatmaps.values(), strict=True)):
        top, left = header + index * (height + between), GAP + large + side
        page.side(label, left - GAP, top, height)
        for column, (depth, values) in enumerate(row):
            place = left + column * (width + GAP), top, width, height
            _draw_map(page, place, values, query_truth)
            if index == 0 or between > GAP:
                page.heading(depth, place[0], top, width)
    beside = DOUBLE_COLUMN - bar, header + LINE / 2, 0.08, bottom - header - LINE
    colour_bar(page, beside, "Correlation", ("0", "max"))
    return page.figure


def _check_heatmaps(heatmaps: Mapping[str, Sequence[DepthMap]]) -> None:
    check_number("backbones", len(heatmaps))
    numbers = {label: len(row) for label, row in heatmaps.items()}
    if len(set(numbers.values())) != 1 or 0 in numbers.values():
        raise DataError(
            f"Each backbone needs as many heat maps as the others, at least one, but has {numbers}."
        )


def _draw_map(page: Page, box: Box, values: FloatMap, ground_truth: TruthMap | None) -> None:
    axes = page.picture(heat(values, float(values.max())), *box)
    outline(axes, ground_truth)
    badge(axes, f"max {values.max():.2f}")


def _draw_inset(
    page: Page, box: Box, support: Image.Image, mask: BoolMap, query_truth: TruthMap | None
) -> None:
    """Put the support into that corner of the query's box that hides the least of the object."""
    left, top, width, height = box
    inner = fit_square(support, 0.4 * min(width, height))
    at_right, at_bottom = _emptiest_corner(query_truth, inner[0] / width, inner[1] / height)
    x = left + (width - inner[0] - GAP if at_right else GAP)
    y = top + (height - inner[1] - GAP if at_bottom else GAP)
    axes = page.picture(overlay(support, mask), x, y, *inner)
    outline(axes, mask)
    whole = Rectangle((0, 0), 1, 1, transform=axes.transAxes, clip_on=False)
    whole.set(fill=False, edgecolor="white", linewidth=1.5)
    axes.add_patch(whole)


def _emptiest_corner(ground_truth: TruthMap | None, x_share: float, y_share: float) -> tuple[bool, bool]:
    """Choose the corner, (at the right?, at the bottom?), where a box of these shares covers least object."""
    corners = [(True, True), (False, True), (True, False), (False, False)]
    if ground_truth is None:
        return corners[0]
    height, width = math.ceil(y_share * ground_truth.shape[0]), math.ceil(x_share * ground_truth.shape[1])

    def covered(corner: tuple[bool, bool]) -> int:
        columns = slice(-width, None) if corner[0] else slice(width)
        rows = slice(-height, None) if corner[1] else slice(height)
        return int(np.count_nonzero(ground_truth[rows, columns] == 1))

    return min(corners, key=covered)


@styled
def passes_figure(rows: Sequence[PassesRow]) -> Figure:
    """Draw an episode a row: support, query with its ground truth, both passes, result with its IoU.

    The passes are foreground probabilities, as colours over the query. Raises DataError without episodes.
    """
    check_number("episodes", len(rows))
    pictures = [
        [
            overlay(row.support, row.support_mask),
            row.query,
            heat(row.first_pass, 1, row.query),
            heat(row.second_pass, 1, row.query),
            overlay(row.query, row.result),
        ]
        for row in rows
    ]
    headings = ("Support", "Query and ground truth", "1st pass (S → Q)", "2nd pass (Q → Q)", "Result")
    sheet = Sheet(pictures, headings, [row.name for row in rows], footer=2 * LINE + 3 * GAP)
    for row, axes in zip(rows, sheet.axes, strict=True):
        outline(axes[0], row.support_mask)
        for one in axes[1:4]:
            outline(one, row.ground_truth)
        outline(axes[4], row.result)
        badge(axes[4], iou_text(row.result, row.ground_truth))
    top, width = sheet.page.height - 2 * LINE - 3 * GAP, sheet.lefts[4] - GAP - sheet.lefts[2]
    colour_bar(sheet.page, (sheet.lefts[2], top, width, 0.06), "Foreground probability", ("0", "0.5", "1"))
    return sheet.page.figure


@styled
def panels_figure(rows: Sequence[PanelRow], method_names: Sequence[str]) -> Figure:
    """Draw an episode a row: support, query with the ground truth in red, each method's mask with its IoU.

    Raises DataError without episodes or methods, or if a row has another number of predictions.
    """
    check_number("episodes", len(rows))
    check_number("methods", len(method_names))
    for index, row in enumerate(rows):
        if len(row.predictions) != len(method_names):
            raise DataError(
                f"Row {index} has {len(row.predictions)} predictions, but there are {len(method_names)} "
                f"methods ({', '.join(method_names)}). Give one prediction a method."
            )
    shown = [_masked_pictures(row) for row in rows]
    pictures = [[overlay(picture, mask) for picture, mask in pairs] for pairs in shown]
    sheet = Sheet(pictures, ("Support", "Query and ground truth", *method_names), [row.name for row in rows])
    for row, pairs, axes in zip(rows, shown, sheet.axes, strict=True):
        for one, (_, mask) in zip(axes, pairs, strict=True):
            outline(one, mask)
        for one, prediction in zip(axes[2:], row.predictions, strict=True):
            badge(one, iou_text(prediction, row.ground_truth))
    return sheet.page.figure


def _masked_pictures(row: PanelRow) -> list[tuple[Image.Image, BoolMap]]:
    masks = (np.asarray(row.ground_truth == 1), *row.predictions)
    return [(row.support, row.support_mask), *((row.query, mask) for mask in masks)]
