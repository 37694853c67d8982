"""Charts: the discriminative power of each tap (Fig. 2 a, b), and each class's IoU."""

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
from kshot.reproduction.discriminability import Power
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
MOST_UPRIGHT_BARS = 12
CLASSES_IN_A_PANEL = 30


@styled
def power_figure(powers: Sequence[Power]) -> Figure:
    """Draw rho_k over the taps k, a line for each backbone; architectures that differ get a panel each.

    Raises DataError if there is nothing to draw, or more lines in a panel than colours.
    """
    check_number("backbones", len(powers))
    panels: dict[tuple[int, ...], list[Power]] = {}
    for power in powers:
        panels.setdefault(tuple(stride for stride, _ in power.taps), []).append(power)
    check_colours("backbones of one architecture", max(map(len, panels.values())))
    width = SINGLE_COLUMN if len(panels) == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, 2.5), layout="constrained")
    for axes, (strides, lines) in zip(
        _row_of_axes(figure, len(panels), sharey=True), panels.items(), strict=True
    ):
        _draw_powers(axes, lines)
        _mark_stages(axes, strides)
    figure.axes[0].set_ylabel(r"Discriminative power $\rho_k$")
    return figure


def _row_of_axes(figure: Figure, number: int, *, sharey: bool) -> list[Axes]:
    return list(figure.subplots(1, number, sharey=sharey, squeeze=False)[0])


def _draw_powers(axes: Axes, powers: Sequence[Power]) -> None:
    taps = np.arange(1, len(powers[0].taps) + 1)
    axes.axhline(1, color="0.4", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    for power, colour, marker in zip(powers, PALETTE, MARKERS, strict=False):
        rho = [math.nan if value is None else value for value in power.rho]
        axes.plot(
            taps, rho, color=colour, marker=marker, markersize=3, linewidth=1.1, label=typeset(power.label)
        )
    axes.margins(y=0.08)
    axes.spines["right"].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.14), borderaxespad=0, labelspacing=0.3)


def _mark_stages(axes: Axes, strides: Sequence[int]) -> None:
    """Separate the stages, name their strides above, and number the taps below."""
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
    """Draw each class's IoU with its 95 % interval, a colour a result, in the order of the first result.

    Bars stand upright for few classes with short names, and lie otherwise. Raises DataError without results,
    with more than colours, or if they aren't of the same benchmark, fold, protocol and classes.
    """
    check_number("results", len(results))
    check_colours("results", len(results))
    _check_same_benchmark(results)
    first = results[0].class_iou
    names = sorted(first, key=lambda name: -first[name])
    widths = [width for width in (SINGLE_COLUMN, DOUBLE_COLUMN) if _fit_upright(names, width)]
    figure = _upright_bars(results, names, widths[0]) if widths else _lying_bars(results, names)
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
                f"{_describe(results[0])}; {_describe(other)}."
            )


def _describe(result: Result) -> str:
    where = f"{result.benchmark} {result.split}, fold {result.fold}, {len(result.classes)} classes"
    return f"{where}, protocol {result.protocol.name}, scored at {result.scored_at} size"


def _fit_upright(names: Sequence[str], width: float) -> bool:
    room = (width - 0.6) / len(names) - GAP
    return len(names) <= MOST_UPRIGHT_BARS and max(map(text_width, names)) < room


def _upright_bars(results: Sequence[Result], names: Sequence[str], width: float) -> Figure:
    figure = Figure(figsize=(width, 2.3 + LINE * len(results)), layout="constrained")
    axes = figure.subplots()
    for index, result in enumerate(results):
        places, thickness = _places(len(names), index, len(results))
        values, errors = _values(result, names)
        axes.bar(places, values, thickness, yerr=errors, label=_result_label(result), **_look(index))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylim(*_scale(results))
    axes.set_ylabel("IoU (%) with 95 % interval")
    _finish_bars(axes, "y")
    return figure


def _lying_bars(results: Sequence[Result], names: Sequence[str]) -> Figure:
    panels = math.ceil(len(names) / CLASSES_IN_A_PANEL)
    longest = math.ceil(len(names) / panels)
    height = longest * max(0.16, 0.085 * len(results) + 0.06) + 0.4 + LINE * len(results)
    width = SINGLE_COLUMN if panels == 1 else DOUBLE_COLUMN
    figure = Figure(figsize=(width, height), layout="constrained")
    for panel, axes in enumerate(_row_of_axes(figure, panels, sharey=False)):
        shown = names[panel * longest : (panel + 1) * longest]
        for index, result in enumerate(results):
            places, thickness = _places(len(shown), index, len(results))
            values, errors = _values(result, shown)
            axes.barh(places, values, thickness, xerr=errors, label=_result_label(result), **_look(index))
        axes.set_yticks(range(len(shown)), shown)
        axes.set_ylim(longest - 0.4, -0.6)
        axes.set_xlim(*_scale(results))
        axes.set_xlabel("IoU (%) with 95 % interval")
        _finish_bars(axes, "x")
    return figure


def _places(number: int, index: int, of: int) -> tuple[NDArray[np.float64], float]:
    """Place the bars of one result beside those of the others: middles (number,), and their thickness."""
    thickness = 0.8 / of
    return np.arange(number, dtype=np.float64) + (index - (of - 1) / 2) * thickness, thickness


def _values(result: Result, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give classes' IoU (N,) in per cent, and how far their intervals reach below and above it (2, N)."""
    values = 100 * np.array([result.class_iou[name] for name in names])
    ends = 100 * np.array([result.interval[name] for name in names])
    return values, np.maximum([values - ends[:, 0], ends[:, 1] - values], 0)


def _scale(results: Sequence[Result]) -> tuple[float, float]:
    highest = max(result.interval[name][1] for result in results for name in result.class_iou)
    return 0, min(100, 10 * math.ceil(10 * highest + 0.2))


def _look(index: int) -> dict[str, Any]:
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
