"""`kshot data`: check a benchmark's files, and build those that cannot be downloaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kshot.cli.options import DATA_HELP, Root, examples

if TYPE_CHECKING:
    from kshot.data.check import ClassCount

app = typer.Typer(help="Check or prepare a benchmark's files.", no_args_is_help=True)


@app.command(
    epilog=examples(
        "kshot data check pascal --root VOC2012",
        "kshot data check my-folder --shots 5",
    )
)
def check(
    data: Annotated[str, typer.Argument(help=DATA_HELP, metavar="NAME_OR_DIR")],
    root: Root = None,
    fold: Annotated[int | None, typer.Option(help="Only this fold; default: all.")] = None,
    split: Annotated[str | None, typer.Option(help="Only train, val or test; default: all.")] = None,
    shots: Annotated[int, typer.Option(help="List classes with too few images for these shots.")] = 1,
) -> None:
    """List everything that is wrong or missing, and count the usable images of each fold and class.

    Exit status: 0 no problems, 1 problems (one line each), 2 there is nothing to check.
    """
    from kshot.data.check import check_data
    from kshot.io.progress import progress

    with progress("Reading", "images") as on_progress:
        report = check_data(data, root, shots=shots, fold=fold, split=split, on_progress=on_progress)
    for line in report.problems:
        typer.echo(line)
    typer.echo(f"{'split':6} {'fold':4} {'class':24} {'listed':>7} {'usable':>7} {'< 2048 px':>10}")
    for count in report.counts:
        name = f"{count.split:6} {count.fold:4} {count.name:24}"
        typer.echo(f"{name} {count.listed:7} {count.usable:7} {count.small:10}")
    for (part, number), (listed, usable) in _sums(report.counts).items():
        typer.echo(f"{part} fold {number}: {usable} of {listed} (image, class) pairs can be used")
    number = len(report.problems)
    typer.echo(f"{number} problem{'s' * (number > 1)}" if number else "No problems.")
    raise typer.Exit(1 if report.problems else 0)


@app.command(
    epilog=examples(
        "kshot data prepare pascal --root data",
        "kshot data prepare pascal --root data --archives downloads",
    )
)
def prepare(
    data: Annotated[str, typer.Argument(help="pascal, the only one that has to be built.", metavar="NAME")],
    root: Annotated[Path, typer.Option(help="Folder for VOC2012/.", metavar="DIR")],
    archives: Annotated[
        Path | None,
        typer.Option(
            help="Folder with VOCtrainval_11-May-2012.tar and benchmark.tgz; missing ones are downloaded.",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Build PASCAL-5i's images and SegmentationClassAug from the official VOC 2012 and SBD archives."""
    from kshot.data.prepare import prepare_pascal
    from kshot.errors import DataError

    if data != "pascal":
        raise DataError(f"'{data}' cannot be prepared, only pascal: the others are used as downloaded.")
    made = prepare_pascal(root, archives, report=typer.echo)
    masks = made.num_voc_masks + made.num_sbd_masks
    typer.echo(f"{made.num_images} images and {masks} masks are in {made.folder}.")


def _sums(counts: "list[ClassCount]") -> dict[tuple[str, int], tuple[int, int]]:
    sums: dict[tuple[str, int], tuple[int, int]] = {}
    for count in counts:
        listed, usable = sums.get((count.split, count.fold), (0, 0))
        sums[count.split, count.fold] = (listed + count.listed, usable + count.usable)
    return sums
