"""Charts: feature discriminability rho of each tap (Fig. 2 a, b), and IoU of each class."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kshot.data.protocols import SELECTION_NOTES
from kshot.errors import DataError
from kshot.evaluation.results import Result, printed_name
from kshot.reproduction.discriminability import Discriminability
from kshot.reproduction.style import (
    DOUBLE_COLUMN,
    GAP,
    LINE,
    PALETTE,
    SINGLE_COLUMN,
    check_colours,
    check_number,
    styled,
    text_width,
    typeset,
    wrap,
)

MARKERS = "osD^vPX"
MAX_VERTICAL_BARS = 12
MAX_CLASSES_PER_COLUMN = 30


@styled
def discriminability_figure(results: Sequence[Discriminability]) -> Figure:
    """Draw rho_k over the taps k, one line per backbone and one plot per architecture.

    Raises DataError if there is nothing to draw, or more backbones of one architecture than colours.
    """
    check_number("backbones", len(results))
    by_strides: dict[tuple[int, ...], list[Discriminability]] = {}
    for result in results:
        by_strides.setdefault(tuple(stride for stride, _ in result.taps), []).append(result)
    check_colours("backbones of one architecture", max(map(len, by_strides.values())))
    width = SINGLE_COLUMN if len(by_strides) == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 2.5), layout="constrained")
    plots = _row_of_axes(figure, len(by_strides), sharey=True)
    for axes, (strides, lines) in zip(plots, by_strides.items(), strict=True):
        _draw_lines(axes, lines)
        _mark_stages(axes, strides)
    figure.axes[0].set_ylabel(r"Feature discriminability $\rho_k$")
    return figure


def _row_of_axes(figure: Figure, number: int, *, sharey: bool) -> list[Axes]:
    return list(figure.subplots(1, number, sharey=sharey, squeeze=False)[0])


def _draw_lines(axes: Axes, results: Sequence[Discriminability]) -> None:
    taps = np.arange(1, len(results[0].taps) + 1)
    axes.axhline(1, color="0.4", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    for result, colour, marker in zip(results, PALETTE, MARKERS, strict=False):
        rho = [math.nan if value is None else value for value in result.rho]
        axes.plot(
            taps, rho, color=colour, marker=marker, markersize=3, linewidth=1.1, label=typeset(result.label)
        )
    axes.margins(y=0.08)
    axes.spines["right"].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.14), borderaxespad=0, labelspacing=0.3)


def _mark_stages(axes: Axes, strides: Sequence[int]) -> None:
    """Draw lines between the stages, their strides above, and the numbers of the taps below."""
    number = len(strides)
    step = next(step for step in (1, 5, 10, 20, 50, number) if number <= 15 * step)
    axes.set_xticks(sorted({1, *range(step, number + 1, step)}))
    axes.set_xlim(0.5, number + 0.5)
    axes.set_xlabel("Tap $k$")
    stages = sorted(set(strides))
    members = [[k for k, stride in enumerate(strides, 1) if stride == stage] for stage in stages]
    for taps in members[:-1]:
        axes.axvline(taps[-1] + 0.5, color="0.85", linewidth=0.8, zorder=0)
    above = axes.secondary_xaxis("top")
    above.set_xticks([(taps[0] + taps[-1]) / 2 for taps in members], [str(stage) for stage in stages])
    above.tick_params(length=0, pad=1)
    above.set_xlabel("Stride of the stage (px)", labelpad=2)


@styled
def class_bars_figure(results: Sequence[Result]) -> Figure:
    """Draw each class's IoU with its 95 % interval, one colour per result, sorted by the first result.

    Bars are vertical for few classes with short names, otherwise horizontal. Raises DataError without
    results, with more results than colours, or if their benchmark, fold, protocol or classes differ.
    """
    check_number("results", len(results))
    check_colours("results", len(results))
    _check_same_benchmark(results)
    first = results[0].class_iou
    names = sorted(first, key=lambda name: -first[name])
    widths = [width for width in (SINGLE_COLUMN, DOUBLE_COLUMN) if _names_fit(names, width)]
    figure = _vertical_bars(results, names, widths[0]) if widths else _horizontal_bars(results, names)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    lines = [wrap(label, figure.get_figwidth() - 0.5) for label in labels]
    figure.legend(handles, lines, loc="outside upper left", labelspacing=0.4, borderpad=0.2)
    return figure


def _check_same_benchmark(results: Sequence[Result]) -> None:
    def key(result: Result) -> tuple[object, ...]:
        classes = tuple(result.classes.values())
        return result.benchmark, result.split, result.fold, result.protocol.name, result.scored_at, classes

    for other in results[1:]:
        if key(other) != key(results[0]):
            raise DataError(
                "Results of different benchmarks, folds, protocols or classes must not share a figure: "
                f"{_describe(results[0])}; {_describe(other)}. Draw one figure for each."
            )


def _describe(result: Result) -> str:
    where = f"{result.benchmark} {result.split}, fold {result.fold}, {len(result.classes)} classes"
    return f"{where}, protocol {result.protocol.name}, scored at {result.scored_at} size"


def _names_fit(names: Sequence[str], width: float) -> bool:
    """Check that class names fit side by side below vertical bars."""
    available = (width - 0.6) / len(names) - GAP
    return len(names) <= MAX_VERTICAL_BARS and max(map(text_width, names)) < available


def _vertical_bars(results: Sequence[Result], names: Sequence[str], width: float) -> Figure:
    figure = Figure(figsize=(width, 2.3 + LINE * len(results)), layout="constrained")
    axes = figure.subplots()
    for index, result in enumerate(results):
        centres, thickness = _bar_positions(len(names), index, len(results))
        values, errors = _iou_with_errors(result, names)
        axes.bar(centres, values, thickness, yerr=errors, label=_result_label(result), **_bar_style(index))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(*_iou_range(results))
    axes.set_ylabel("IoU (%) with 95 % interval")
    _finish_bars(axes, "y")
    return figure


def _horizontal_bars(results: Sequence[Result], names: Sequence[str]) -> Figure:
    columns = math.ceil(len(names) / MAX_CLASSES_PER_COLUMN)
    longest = math.ceil(len(names) / columns)
    height = longest * max(0.16, 0.085 * len(results) + 0.06) + 0.4 + LINE * len(results)
    width = SINGLE_COLUMN if columns == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, height), layout="constrained")
    for column, axes in enumerate(_row_of_axes(figure, columns, sharey=False)):
        shown = names[column * longest : (column + 1) * longest]
        for index, result in enumerate(results):
            centres, thickness = _bar_positions(len(shown), index, len(results))
            values, errors = _iou_with_errors(result, shown)
            axes.barh(
                centres, values, thickness, xerr=errors, label=_result_label(result), **_bar_style(index)
            )
        axes.set_yticks(range(len(shown)), shown)
        axes.set_ylim(longest - 0.4, -0.6)
        axes.set_xlim(*_iou_range(results))
        axes.set_xlabel("IoU (%) with 95 % interval")
        _finish_bars(axes, "x")
    return figure


def _bar_positions(number: int, index: int, of: int) -> tuple[NDArray[np.float64], float]:
    """Return the centres (number,) and the thickness of the bars of result `index`, beside the others."""
    thickness = 0.8 / of
    return np.arange(number, dtype=np.float64) + (index - (of - 1) / 2) * thickness, thickness


def _iou_with_errors(result: Result, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return IoU (N,) in percent, and the lengths of the intervals below and above it (2, N)."""
    values = 100 * np.array([result.class_iou[name] for name in names])
    ends = 100 * np.array([result.interval[name] for name in names])
    return values, np.maximum([values - ends[:, 0], ends[:, 1] - values], 0)


def _iou_range(results: Sequence[Result]) -> tuple[float, float]:
    highest = max(result.interval[name][1] for result in results for name in result.class_iou)
    return 0, min(100, 10 * math.ceil(10 * highest + 0.2))


def _bar_style(index: int) -> dict[str, Any]:
    errors = {"elinewidth": 0.6, "ecolor": "0.25", "capsize": 1, "capthick": 0.6}
    return {"color": PALETTE[index], "error_kw": errors}


def _finish_bars(axes: Axes, values_along: Literal["x", "y"]) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis=values_along, color="0.88", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params("y" if values_along == "x" else "x", length=0)


def _result_label(result: Result) -> str:
    low, high = (100 * end for end in result.interval["miou"])
    config = result.model.config
    model = f"{result.model.name}, {printed_name(config.backbone)}, {result.shots}-shot"
    if config.selected_on is not None:
        model += f" ({SELECTION_NOTES[config.selected_on]})"
    return f"{model}: mIoU {100 * result.miou:.1f} [{low:.1f}, {high:.1f}]"
