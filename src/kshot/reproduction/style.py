"""The style of figures: sizes in inches, text in points, and files that are byte-identical every time.

Colours of lines and bars are those of Okabe and Ito, which colour-blind readers can tell apart. matplotlib's
global settings stay as they are.
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
"""Widths of one column and of the page of a journal."""
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TEXT = 7
"""Size of all text: the smallest that journals accept."""
LINE, GAP = 0.125, 0.04
"""Height of a line of text, and the space between two images."""
STYLE: Any = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same everywhere
    "font.size": TEXT,
    "axes.linewidth": 0.6,
    "axes.labelsize": TEXT,
    "axes.labelpad": 2,
    "axes.titlesize": TEXT,
    "axes.titlepad": 3,
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
"""Entries removed from each kind of file, so that the same figure gives the same bytes."""
BoolMap = NDArray[np.bool_]
FloatMap = NDArray[np.floating[Any]]
LabelMap = NDArray[np.uint8] | BoolMap
P = ParamSpec("P")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically, as PNG (300 dpi), PDF or SVG by its suffix.

    The same figure gives the same bytes. Raises DataError for another suffix.
    """
    metadata = METADATA.get(path.suffix.lower())
    if metadata is None:
        raise DataError(f"A figure cannot be written as {path.name}. Use one of {', '.join(METADATA)}.")
    with rc_context(STYLE | FILE_STYLE), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata=metadata)


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in this module's style, not the user's, and fix the layout so that writing cannot change it."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with rc_context(STYLE):
            figure = draw(*args, **kwargs)
            for axes in figure.axes:
                axes.tick_params(labelsize=TEXT)  # otherwise every drawing reads the user's settings again
            for _ in range(2):  # the layout depends on the ticks, and the ticks on the layout
                figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return figure

    return styled


def typeset(label: str) -> str:
    """Write the symbols of the two backbones as in the paper."""
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
    """Return the width of a line of text in inches."""
    path = TextPath((0, 0), text, size=TEXT, prop=STYLE["font.family"][0])
    return float(path.get_extents().width) / 72


def wrap(text: str, width: float) -> str:
    """Break text into lines of at most `width` inches, inside words only if a word is too long."""
    for breaks in (False, True):
        for letters in range(max(len(text), 1), 0, -1):
            lines = textwrap.wrap(text, letters, break_long_words=breaks, break_on_hyphens=breaks)
            if all(text_width(line) <= width for line in lines):
                return "\n".join(lines)
    return text
