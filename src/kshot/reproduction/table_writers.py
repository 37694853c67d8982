"""Tables of text, written as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from string import ascii_lowercase
from typing import NamedTuple

from kshot.errors import DataError

MISSING = "\N{EN DASH}"


class Cell(NamedTuple):
    """Text of a cell, and its footnotes."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of text. Adjacent columns of one group share a header."""

    title: str
    columns: tuple[tuple[str, str], ...]
    """Group, or "", and name of each column."""
    rows: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[str, ...] = ()
    """Footnotes of the whole table."""
    num_texts: int = 2
    """Number of text columns, at the left; the others are numbers."""

    @property
    def marks(self) -> dict[str, str]:
        """Letters of the cells' footnotes, in order of appearance."""
        notes = dict.fromkeys(note for row in self.rows for cell in row for note in cell.notes)
        return {note: ascii_lowercase[n % 26] * (n // 26 + 1) for n, note in enumerate(notes)}


def to_markdown(table: Table) -> str:
    """Return a table as Markdown, numbers right-aligned, footnotes as a list."""
    marks = table.marks
    lines = [_joined(table), ["---"] * table.num_texts + ["---:"] * (len(table.columns) - table.num_texts)]
    lines += [[_marked(cell, marks, "<sup>{}</sup>") for cell in row] for row in table.rows]
    body = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
    notes = [f"- {note}" for note in _footnotes(table, "<sup>{}</sup> ")]
    return "\n".join([f"**{table.title}**", "", *body, "", *notes]).rstrip("\n") + "\n"


def to_latex(table: Table) -> str:
    """Return a table as LaTeX with booktabs, a rule between backbones, footnotes below."""
    columns = "l" * table.num_texts + "r" * (len(table.columns) - table.num_texts)
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escape(table.title)}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        *_latex_head(table),
        *_latex_body(table),
        "\\bottomrule",
        "\\end{tabular}",
        *(f"\\par{{\\footnotesize {note}}}" for note in _footnotes(table, _SUPERSCRIPT, _escape)),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Return a table as CSV: footnote letters in the last column, footnotes after `#`."""
    marks, text = table.marks, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_joined(table), "notes"])
    for row in table.rows:
        letters = dict.fromkeys(marks[note] for cell in row for note in cell.notes)
        writer.writerow([*("" if cell.text == MISSING else cell.text for cell in row), " ".join(letters)])
    return text.getvalue() + "".join(f"# {note}\n" for note in [table.title, *_footnotes(table, "{}: ")])


def insert_between(text: str, name: str, generated: str) -> str:
    """Replace the text between `<!-- begin NAME -->` and `<!-- end NAME -->` in a document.

    Raises DataError unless both markers occur once, in this order.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    found = text.count(begin), text.count(end)
    if found != (1, 1) or text.index(begin) > text.index(end):
        raise DataError(
            f"The document must hold '{begin}' once and '{end}' once, in this order; it holds them "
            f"{found[0]} and {found[1]} times. Put them where the table belongs."
        )
    before, rest = text.split(begin)
    return f"{before}{begin}\n{generated.strip()}\n{end}{rest.split(end)[1]}"


def _joined(table: Table) -> list[str]:
    """Return each column's group and name as one text."""
    return [f"{group} {name}".strip() for group, name in table.columns]


def _marked(cell: Cell, marks: dict[str, str], form: str) -> str:
    letters = ",".join(marks[note] for note in cell.notes)
    return cell.text + (form.format(letters) if letters else "")


def _footnotes(table: Table, form: str, escape: Callable[[str], str] = str) -> list[str]:
    marked = [form.format(mark) + escape(note) for note, mark in table.marks.items()]
    return marked + [escape(note) for note in table.footnotes]


_SUPERSCRIPT = "\\textsuperscript{{{}}}"

_LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "[": "{[}",  # otherwise read as the option of a line break
    MISSING: "--",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_line(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex_head(table: Table) -> list[str]:
    """Return one line of names, or the groups with a rule under each and then the names."""
    names = _latex_line(_escape(name) for _, name in table.columns)
    groups, rules, first = [], [], 1
    for group, columns in groupby(group for group, _ in table.columns):
        width = len(list(columns))
        groups += [f"\\multicolumn{{{width}}}{{c}}{{{_escape(group)}}}"] if group else [""] * width
        rules += [f"\\cmidrule(lr){{{first}-{first + width - 1}}}"] if group else []
        first += width
    return [_latex_line(groups), "".join(rules), names] if rules else [names]


def _latex_body(table: Table) -> list[str]:
    """Return the rows, with a rule above each backbone."""
    marks, lines = table.marks, []
    for _, rows in groupby(table.rows, key=lambda row: row[0]):
        lines.append("\\midrule")
        for row in rows:
            escaped = (cell._replace(text=_escape(cell.text)) for cell in row)
            lines.append(_latex_line(_marked(cell, marks, _SUPERSCRIPT) for cell in escaped))
    return lines
