"""The rows of the table in docs/robustness.md."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kshot.reproduction.table_writers import Cell, Table, to_markdown

VERDICTS = {True: "yes", False: "**no**", None: "not run here"}


class Outcome(NamedTuple):
    """The outcome of a row. is_met: whether it is the expected one; None if it could not be measured."""

    figure: str
    is_met: bool | None


class Row(NamedTuple):
    """One measurement.

    name: command-line name. case, expected: texts of the table. measure: gets an empty folder.
    """

    name: str
    case: str
    expected: str
    measure: Callable[[Path], Outcome]


class CannotRun(Exception):  # noqa: N818  not an error of the row
    """A row needs something that this machine does not have; the message names it."""


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return measured rows as a Markdown table: case, expected, measured, met."""
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
