"""Options that several verbs share, so that one meaning has one name, one set of values and one help text."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from kshot.errors import KshotError
from kshot.methods.hub import find_folder

if TYPE_CHECKING:
    from kshot.segmenter import Segmenter

SUPPORT, MODEL = "Support set", "Model"
"""Groups in the help of verbs with many options."""

DATA_HELP = "pascal, coco, fss1000, coco-mini-60, or a folder."

Data = Annotated[str, typer.Option(help=DATA_HELP, metavar="NAME_OR_DIR")]
Root = Annotated[Path | None, typer.Option(help="Folder of the benchmark's files.", metavar="DIR")]
Fold = Annotated[int, typer.Option(help="0 to 3 on pascal and coco.")]
Shots = Annotated[int, typer.Option(help="Support images of each episode.", min=1)]
Split = Annotated[str | None, typer.Option(help="train, val or test; default: the one that is tested on.")]
ProtocolName = Annotated[
    str | None,
    typer.Option("--protocol", help="hsnet, bam, pfenet or balanced; see docs/benchmarks.md."),
]
Model = Annotated[
    str,
    typer.Option(
        help="Model that ships with kshot, a model's folder, or OWNER/NAME on the hub.",
        rich_help_panel=MODEL,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Side in pixels at which the network works; default: the model's own.",
        min=1,
        rich_help_panel=MODEL,
    ),
]
BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone", help="Another backbone, for prototype, which has no training.", rich_help_panel=MODEL
    ),
]
BackboneWeights = Annotated[
    Path | None,
    typer.Option(
        help="File with the backbone's ImageNet weights (.safetensors, .pth).",
        metavar="FILE",
        rich_help_panel=MODEL,
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or mps; auto: a GPU if there is one.", rich_help_panel=MODEL)
]
Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write the result as JSON; - prints it instead of text.", metavar="FILE"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting (repeatable).", metavar="NAME=VALUE"),
]
SupportPairs = Annotated[
    list[Any] | None,
    typer.Option(
        "--support",
        help="A support image (or GeoTIFF, volume) and its mask, 0 on the background (repeatable); or two "
        "folders of them, with the same names.",
        metavar="IMAGE MASK",
        rich_help_panel=SUPPORT,
    ),
]
SupportFile = Annotated[
    Path | None,
    typer.Option(
        "--support-set",
        help="Instead of --support: a file of COCO, LabelMe, CVAT or Label Studio, a folder of LabelMe "
        "files, or a folder of images and masks.",
        metavar="FILE_OR_DIR",
        rich_help_panel=SUPPORT,
    ),
]
SupportImages = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the images of --support-set, if they are not beside it.",
        metavar="DIR",
        rich_help_panel=SUPPORT,
    ),
]
Classes = Annotated[
    str,
    typer.Option(
        help="With --support: names of the classes and their values in the masks, as cat=1,dog=2. With "
        "--support-set: names of the classes to use, as cat,dog.",
        metavar="NAME[=VALUE],…",
        rich_help_panel=SUPPORT,
    ),
]


class WithSupportPairs(TyperCommand):
    """A command whose --support takes two values. Click has repeatable options of several values; typer's
    annotations have not."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        for parameter in self.params:
            if parameter.name == "support_pairs":
                parameter.nargs = 2

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises KshotError if a mask is missing: click would take the next option."""
        for index, argument in enumerate(args):
            pair = args[index + 1 : index + 3]
            if argument == "--support" and (len(pair) < 2 or any(one.startswith("--") for one in pair)):
                raise KshotError("--support takes two files: an image and its mask.")
        return super().parse_args(ctx, args)


def examples(*commands: str) -> str:
    """Return the end of a verb's help: commands that can be pasted."""
    return "\n\n".join(["Examples:", *(command.replace("[", r"\[") for command in commands)])


STDOUT = Path("-")


def check_json_file(json_file: Path | None) -> None:
    """Raise DataError now, and not after hours of work, if the file of --json cannot be written."""
    from kshot.io.files import check_place

    if json_file not in (None, STDOUT):
        check_place(json_file)


def report(lines: Iterable[str], as_json: str, json_file: Path | None) -> None:
    """Print lines and write the file of --json, if there is one; for "-" print JSON alone."""
    from kshot.io.files import write_text

    if json_file == STDOUT:
        typer.echo(as_json)
        return
    typer.echo("\n".join(lines))
    if json_file is not None:
        write_text(as_json + "\n", json_file)


def load_segmenter(model: str, **settings: Any) -> "Segmenter":
    """Load the named model. A wrong name is reported before torch is imported."""
    if "/" not in model:
        find_folder(model)
    from kshot.segmenter import Segmenter

    return Segmenter.from_pretrained(model, **settings)
