"""The curves of a training: losses and validation over its steps."""

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
    """Draw each loss, and each score of the validations, over the steps of all phases together.

    entries: lines of a run's log. Raises DataError if nothing was logged yet.
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
    """Draw the curves of a run's log into a picture file."""
    save_figure(curves_figure(entries), path)


def _lines(entries: Iterable[Entry], kind: str) -> dict[str, Line]:
    """Collect values by name; the steps of a phase go on where those of the phase before end."""
    lines: dict[str, Line] = {}
    before, phase, step = 0, 0, 0
    for entry in entries:
        if entry["phase"] != phase:
            before, phase = before + step, entry["phase"]
        step = entry["step"]
        for name, value in entry.get(kind, {}).items():
            lines.setdefault(name, []).append((before + step, value))
    return lines


def _draw(axes: Axes, lines: dict[str, Line], label: str, marker: str | None = None) -> None:
    check_colours(f"curves of {label.lower()}", len(lines))
    for (name, points), colour in zip(lines.items(), PALETTE, strict=False):
        steps, values = zip(*points, strict=True)
        shown = name.replace("_", " ").replace("miou", "mIoU")
        axes.plot(steps, values, color=colour, linewidth=1, marker=marker, markersize=2.5, label=shown)
    axes.set_xlabel("Step")
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    if lines:
        axes.legend()
