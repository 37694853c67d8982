"""Curves of a training run: losses and validation scores over its steps."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kshot.errors import DataError
from kshot.reproduction.style import DOUBLE_COLUMN, PALETTE, check_colours, save_figure, styled

Entry = Mapping[str, Any]
Line = list[tuple[int, float]]


@styled
def curves_figure(entries: Iterable[Entry]) -> Figure:
    """Draw each loss and each validation score over the steps of all phases.

    entries: lines of the run's log. Raises DataError if the log has neither.
    """
    losses, scores = _lines(entries, "losses"), _lines(entries, "validation")
    if not losses and not scores:
        raise DataError("There is nothing to draw: the log has neither losses nor validations.")
    figure = Figure(figsize=(DOUBLE_COLUMN, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw(left, losses, "Loss")
    _draw(right, scores, "Validation", marker="o")
    return figure


def save_curves(entries: Iterable[Entry], path: Path) -> None:
    """Draw the curves of a run's log and write them as an image."""
    save_figure(curves_figure(entries), path)


def _lines(entries: Iterable[Entry], kind: str) -> dict[str, Line]:
    """Collect (step, value) by name; steps are counted on from one phase to the next."""
    lines: dict[str, Line] = {}
    offset, phase, step = 0, 0, 0
    for entry in entries:
        if entry["phase"] != phase:
            offset, phase = offset + step, entry["phase"]
        step = entry["step"]
        for name, value in entry.get(kind, {}).items():
            lines.setdefault(name, []).append((offset + step, value))
    return lines


def _draw(axes: Axes, lines: dict[str, Line], label: str, marker: str | None = None) -> None:
    check_colours(f"curves of {label.lower()}", len(lines))
    for (name, points), colour in zip(lines.items(), PALETTE, strict=False):
        steps, values = zip(*points, strict=True)
        label_of_line = name.replace("_", " ").replace("miou", "mIoU")
        axes.plot(
            steps, values, color=colour, linewidth=1, marker=marker, markersize=2.5, label=label_of_line
        )
    axes.set_xlabel("Step")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    if lines:
        axes.legend()
