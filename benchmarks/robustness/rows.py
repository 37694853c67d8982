"""What a row of docs/robustness.md is, and how rows become its table."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kshot.reproduction.table_writers import Cell, Table, to_markdown

VERDICTS = {True: "yes", False: "**no**", None: "not run here"}


class Found(NamedTuple):
    """What a row measured. is_met: whether that is what was expected; None: it could not be measured here."""

    figure: str
    is_met: bool | None


class Row(NamedTuple):
    """A bad day. measure: lives through it, in an empty folder, and says what happened.

    name: to choose it by. expected: as a figure.
    """

    name: str
    case: str
    expected: str
    measure: Callable[[Path], Found]


class CannotRun(Exception):  # noqa: N818  it is no error of the row's
    """A row needs something that this machine does not have; the text says what."""


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write measured rows as a table: case, what was expected, what happened, and whether it was met."""
    rows = list(rows)
    columns = tuple(("", name) for name in ("case", "expected", "measured", "met"))
    cells = tuple(
        tuple(map(Cell, (row["case"], row["expected"], row["figure"], VERDICTS[row["is_met"]])))
        for row in rows
    )
    met = sum(row["is_met"] is True for row in rows)
    minutes = sum(row["provenance"]["seconds"] for row in rows) / 60
    notes = (*dict.fromkeys(map(_machine, rows)), f"All rows together took {minutes:.1f} minutes.")
    return to_markdown(Table(f"{met} of {len(rows)} rows are met", columns, cells, notes, num_texts=4))


def _machine(row: Mapping[str, Any]) -> str:
    versions = row["provenance"]["versions"]
    return (
        f"{row['provenance']['machine']}; Python {versions['python']}, PyTorch {versions['torch']}, "
        f"Pillow {versions['pillow']}."
    )
