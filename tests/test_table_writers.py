"""The three ways to write a table."""

import csv
import re

import pytest
from make_data import result_of

from kshot.errors import DataError
from kshot.reproduction.table_writers import (
    MISSING,
    Cell,
    Table,
    insert_between,
    to_csv,
    to_latex,
    to_markdown,
)
from kshot.reproduction.tables import list_table, paper_table

SMALL = Table(
    "50 % & more",
    (("", "Backbone"), ("", "Method"), ("1-shot", "f_0"), ("1-shot", "mIoU"), ("", "Size")),
    (
        (Cell("A"), Cell("x|y", ("first",)), Cell("1.0"), Cell("2.0", ("second",)), Cell("3")),
        (Cell("A"), Cell("[z]", ("second", "first")), Cell(MISSING), Cell("~^\\"), Cell("")),
    ),
    ("whole_table",),
)


def test_markdown():
    assert to_markdown(SMALL).replace(MISSING, "-") == (
        "**50 % & more**\n\n"
        "| Backbone | Method | 1-shot f_0 | 1-shot mIoU | Size |\n"
        "| --- | --- | ---: | ---: | ---: |\n"
        "| A | x\\|y<sup>a</sup> | 1.0 | 2.0<sup>b</sup> | 3 |\n"
        "| A | [z]<sup>b,a</sup> | - | ~^\\ |  |\n\n"
        "- <sup>a</sup> first\n- <sup>b</sup> second\n- whole_table\n"
    )


def test_latex():
    assert to_latex(SMALL) == (
        "\\begin{table}\n\\centering\n\\caption{50 \\% \\& more}\n\\begin{tabular}{llrrr}\n\\toprule\n"
        " &  & \\multicolumn{2}{c}{1-shot} &  \\\\\n\\cmidrule(lr){3-4}\n"
        "Backbone & Method & f\\_0 & mIoU & Size \\\\\n\\midrule\n"
        "A & x\\textbar{}y\\textsuperscript{a} & 1.0 & 2.0\\textsuperscript{b} & 3 \\\\\n"
        "A & {[}z]\\textsuperscript{b,a} & -- & "
        "\\textasciitilde{}\\textasciicircum{}\\textbackslash{} &  \\\\\n"
        "\\bottomrule\n\\end{tabular}\n"
        "\\par{\\footnotesize \\textsuperscript{a}first}\n\\par{\\footnotesize \\textsuperscript{b}second}\n"
        "\\par{\\footnotesize whole\\_table}\n\\end{table}\n"
    )


def all_kinds():
    results = [result_of(), result_of(fold=1, selected_on="novel")]
    return [*(paper_table(number, results) for number in ("2", "3", "5")), list_table(results), SMALL]


@pytest.mark.parametrize("table", all_kinds(), ids=lambda table: table.title[:12])
def test_latex_is_balanced_and_every_row_complete(table):
    latex = to_latex(table)
    open_environments = []
    for command, name in re.findall(r"\\(begin|end)\{(\w+)\}", latex):
        if command == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments
    bare = re.sub(r"\\[{}]", "", latex)
    assert bare.count("{") == bare.count("}")
    width = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", latex)[1])
    assert width == len(table.columns)
    lines = [line for line in latex.splitlines() if line.endswith("\\\\")]
    assert len(lines) == len(table.rows) + (2 if any(group for group, _ in table.columns) else 1)
    for line in lines:
        spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
        assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == width, line


@pytest.mark.parametrize("table", all_kinds(), ids=lambda table: table.title[:12])
def test_csv_reads_back(table):
    lines = to_csv(table).splitlines()
    head, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    assert head == [*(f"{group} {name}".strip() for group, name in table.columns), "notes"]
    assert len(rows) == len(table.rows)
    for row, read in zip(table.rows, rows, strict=True):
        assert read[:-1] == ["" if cell.text == MISSING else cell.text for cell in row]
        assert {note for note, mark in table.marks.items() if mark in read[-1].split()} == {
            note for cell in row for note in cell.notes
        }
    comments = [line for line in lines if line.startswith("#")]
    assert comments == lines[-len(comments) :]
    assert len(comments) == 1 + len(table.marks) + len(table.footnotes)


def test_marks_go_on_after_z():
    rows = tuple((Cell("A", (f"note {n}",)),) for n in range(28))
    assert list(Table("", (("", "A"),), rows).marks.values())[25:] == ["z", "aa", "bb"]


def test_what_stands_between_markers_is_replaced():
    text = (
        "before <!-- begin scores -->\nold\n<!-- end scores --> after <!-- begin other --><!-- end other -->"
    )
    once = insert_between(text, "scores", "\nnew\n")
    assert once == text.replace("old", "new")
    assert insert_between(once, "scores", "new") == once
    assert "<!-- begin other -->\nx\n<!-- end other -->" in insert_between(text, "other", "x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- begin a -->",
        "<!-- end a --><!-- begin a -->",
        "<!-- begin a --><!-- end a --><!-- begin a --><!-- end a -->",
    ],
)
def test_markers_that_do_not_enclose_one_place_are_refused(text):
    with pytest.raises(DataError, match="must hold '<!-- begin a -->' once and '<!-- end a -->' once"):
        insert_between(text, "a", "new")
