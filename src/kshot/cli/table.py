"""`kshot table`: tables of results."""

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = (
    "kshot table list results/*.json",
    "kshot table 2 results/*.json --format latex --out table2.tex",
)


def table(
    which: Annotated[
        Literal["2", "3", "5", "ablation", "list"],
        typer.Argument(
            help="A table of the paper, with its printed rows; an ablation; or a list of any results."
        ),
    ],
    results: Annotated[
        list[Path] | None, typer.Argument(help="Results of kshot evaluate.", metavar="RESULT.json…")
    ] = None,
    form: Annotated[
        Literal["markdown", "latex", "csv"], typer.Option("--format", help="Format of the table.")
    ] = "markdown",
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: print it.", metavar="FILE")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Document to write it into, between <!-- begin table-WHICH --> and <!-- end … -->.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Make a table of result files: one of the paper's tables with added rows, an ablation, or a list."""
    from kshot.evaluation.results import read_result
    from kshot.io.files import write_text
    from kshot.reproduction.table_writers import insert_between, to_csv, to_latex, to_markdown
    from kshot.reproduction.tables import ablation_table, list_table, paper_table

    found = [read_result(path) for path in results or []]
    match which:
        case "list":
            made = list_table(found)
        case "ablation":
            made = ablation_table(found)
        case _:
            made = paper_table(which, found)
    text = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}[form](made)
    if into is not None:
        text, out = insert_between(into.read_text(), f"table-{which}", text), into
    if out is None:
        typer.echo(text, nl=False)
        return
    write_text(text, out)
