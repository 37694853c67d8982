"""The `kshot` command. Each verb has a file; what takes long to import is imported in the verbs."""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from kshot.cli import (
    choose,
    compare,
    data,
    episodes,
    evaluate,
    export,
    figure,
    info,
    pretrain,
    segment,
    serve,
    suggest,
    table,
    train,
    tune_threshold,
)
from kshot.cli.log_lines import show_messages
from kshot.cli.options import WithSupportPairs, examples
from kshot.errors import KshotError

app = typer.Typer(
    name="kshot",
    help="Segment a new class of object from one to five labelled examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

USE, TRAIN, BENCHMARK = "Segment images", "Train", "Benchmark"
app.command(cls=WithSupportPairs, epilog=examples(*segment.EXAMPLES), rich_help_panel=USE)(segment.segment)
app.command(cls=WithSupportPairs, epilog=examples(*suggest.EXAMPLES), rich_help_panel=USE)(suggest.suggest)
app.command(epilog=examples(*serve.EXAMPLES), rich_help_panel=USE)(serve.serve)
app.command(epilog=examples(*export.EXAMPLES), rich_help_panel=USE)(export.export)
app.command(epilog=examples(*info.EXAMPLES), rich_help_panel=USE)(info.info)
app.command(epilog=examples(*pretrain.EXAMPLES), rich_help_panel=TRAIN)(pretrain.pretrain)
app.command(epilog=examples(*train.EXAMPLES), rich_help_panel=TRAIN)(train.train)
app.command(epilog=examples(*choose.EXAMPLES), rich_help_panel=TRAIN)(choose.choose)
app.command(epilog=examples(*tune_threshold.EXAMPLES), rich_help_panel=TRAIN)(tune_threshold.tune_threshold)
app.command(epilog=examples(*evaluate.EXAMPLES), rich_help_panel=BENCHMARK)(evaluate.evaluate)
app.command(epilog=examples(*compare.EXAMPLES), rich_help_panel=BENCHMARK)(compare.compare)
app.command(epilog=examples(*episodes.EXAMPLES), rich_help_panel=BENCHMARK)(episodes.episodes)
app.command(epilog=examples(*table.EXAMPLES), rich_help_panel=BENCHMARK)(table.table)
app.add_typer(figure.app, name="figure", rich_help_panel=BENCHMARK)
app.add_typer(data.app, name="data", rich_help_panel=BENCHMARK)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from kshot import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command. A user's mistake is one line and exit status 2, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name can have bytes that are not text
    try:
        show_messages(arguments)
        app(arguments, obj=arguments)
    except (KshotError, OSError) as error:  # OSError: a full disk, or a folder without permission to write
        typer.echo(f"kshot: {error}", err=True)
        sys.exit(2)
    except MemoryError:
        typer.echo("kshot: The memory is full. End other programs, or use smaller images.", err=True)
        sys.exit(2)
