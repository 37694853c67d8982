"""How figures look: sizes in inches, text in points, and files that are the same bytes every time.

Colours of lines and bars are Okabe and Ito's, which colour-blind readers can tell apart. matplotlib's global
state is left as it was.
"""

import textwrap
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

from kshot.errors import DataError
from kshot.io.files import atomic_write

SINGLE_COLUMN, DOUBLE_COLUMN = 3.5, 7.2
"""Widths of a journal's column and of its page."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TEXT = 7
"""Size of all text: the least that journals take."""
LINE, GAP = 0.125, 0.04
"""Height of a line of text, and what lies between two things."""
STYLE: Any = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
    "font.size": TEXT,
    "axes.linewidth": 0.6,
    "axes.labelsize": TEXT,
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}
FILE_STYLE: Any = {"pdf.fonttype": 42, "svg.hashsalt": "kshot"}
DPI = 300
METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}
"""What is left out of each kind of file, so that the same figure is the same bytes."""
BoolMap = NDArray[np.bool_]
FloatMap = NDArray[np.floating[Any]]
TruthMap = NDArray[np.uint8] | BoolMap
Box = tuple[float, float, float, float]
"""Left, top, width, height."""
P = ParamSpec("P")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG (300 dpi), PDF or SVG by its suffix, whole or not at all.

    The same figure gives the same bytes. Raises DataError for another suffix.
    """
    metadata = METADATA.get(path.suffix.lower())
    if metadata is None:
        raise DataError(f"A figure cannot be written as {path.name}. Use one of {', '.join(METADATA)}.")
    with rc_context(STYLE | FILE_STYLE), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata=metadata)


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in our style whatever the user's is, and fix the layout, so that no later write can move it."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(STYLE):
            figure = draw(*args, **kwargs)
            for axes in figure.axes:
                axes.tick_params(labelsize=TEXT)  # else it is looked up again at every drawing
            for _ in range(2):  # what fits decides the ticks, and the ticks decide what fits
                figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    return styled


def typeset(label: str) -> str:
    """Set the symbols of the two backbones as the paper does."""
    return label.replace("B_cls", "$B_{cls}$").replace("B_sem", "$B_{sem}$")


def check_number(what: str, number: int) -> None:
    """Raise DataError if there is nothing to draw."""
    if not number:
        raise DataError(f"There are no {what} to draw. Give at least one.")


def check_colours(what: str, number: int) -> None:
    """Raise DataError if there are more things than colours."""
    if number > len(PALETTE):
        raise DataError(f"There are {number} {what}, but only {len(PALETTE)} colours. Draw several figures.")


def text_width(text: str) -> float:
    """Measure a line of text, in inches."""
    path = TextPath((0, 0), text, size=TEXT, prop=STYLE["font.family"][0])
    return float(path.get_extents().width) / 72


def wrap(text: str, width: float) -> str:
    """Break text into lines that are at most `width` inches wide, between words if that is enough."""
    for breaks in (False, True):
        for letters in range(max(len(text), 1), 0, -1):
            lines = textwrap.wrap(text, letters, break_long_words=breaks, break_on_hyphens=breaks)
            if all(text_width(line) <= width for line in lines):
                return "\n".join(lines)
    return text
