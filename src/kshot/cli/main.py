"""The `kshot` command: one function per verb. What takes long to import is imported in the verbs."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kshot.cli.data import app as data_app
from kshot.cli.evaluation import add_to as add_benchmark_verbs
from kshot.cli.figures import app as figure_app
from kshot.cli.serve import serve
from kshot.cli.training import add_to as add_training_verbs
from kshot.errors import KshotError

if TYPE_CHECKING:
    from kshot.io.raster_options import RasterOptions
    from kshot.predict.support_set import SupportSet
    from kshot.segmenter import Segmenter

app = typer.Typer(
    name="kshot",
    help="Segment a new class of thing from one to five labelled examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


Queries = Annotated[
    list[Path],
    typer.Argument(help="Images, or folders of them.", metavar="IMAGE_OR_FOLDER"),
]
SupportPairs = Annotated[
    list[Path] | None,
    typer.Option(
        "--support",
        help="A labelled image, map or scan and its mask: 0 background, another value the object. Repeat for "
        "more.",
        metavar="IMAGE MASK",
    ),
]
SupportFile = Annotated[
    Path | None,
    typer.Option(
        "--supports",
        help="Instead: what a tool has annotated. A file of COCO, LabelMe, CVAT or Label Studio, a "
        "folder of LabelMe's, or folders of images and masks.",
        metavar="FILE_OR_FOLDER",
    ),
]
SupportImages = Annotated[
    Path | None,
    typer.Option(help="Where the photographs of --supports are, if not beside it.", metavar="FOLDER"),
]
Negatives = Annotated[
    list[Path] | None,
    typer.Option(
        "--negative",
        help="An image without the object, in which the model finds it none the less: not this. Repeat for "
        "more. For prototype.",
        metavar="IMAGE",
    ),
]
Classes = Annotated[
    str,
    typer.Option(
        help="With --support: the classes' names and their values in the masks. With --supports: the "
        "names of the classes to use.",
        metavar="NAME[=VALUE],…",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="Model that ships with kshot, a model's folder, or OWNER/NAME on the hub."),
]
ImageSize = Annotated[
    int | None, typer.Option(help="Side in pixels at which the network works; default the model's own.")
]
BackboneName = Annotated[
    str | None, typer.Option("--backbone", help="Another one, for a model that learnt nothing (prototype).")
]
BackboneWeights = Annotated[
    Path | None,
    typer.Option(help="File with the backbone's ImageNet weights (.safetensors, .pth).", metavar="FILE"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, …")]


@app.command()
def segment(
    context: typer.Context,
    queries: Queries,
    out: Annotated[Path, typer.Option(help="Folder for the results.", metavar="FOLDER")],
    support_pairs: SupportPairs = None,
    support_file: SupportFile = None,
    support_images: SupportImages = None,
    negatives: Negatives = None,
    classes: Classes = "",
    model: Model = None,
    image_size: ImageSize = None,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Read larger images in windows of this side in pixels, to see their detail. GeoTIFFs: 1000."
        ),
    ] = None,
    long_side: Annotated[
        int | None,
        typer.Option(
            help="See larger images as if their longer side had so many pixels, in windows of --tile, or of "
            "the model's own size without it. Masks keep the images' size."
        ),
    ] = None,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
    engine: Annotated[
        Literal["torch", "openvino"],
        typer.Option(help="openvino reads images faster, on a CPU (pip install 'kshot\\[openvino]')."),
    ] = "torch",
    precision: Annotated[
        Literal["fp32", "bf16"],
        typer.Option(help="bf16 is faster on CPUs that have it; few pixels then come out otherwise."),
    ] = "fp32",
    bands: Annotated[
        str,
        typer.Option(
            help="Of GeoTIFFs: the bands for red, green and blue, or one. Default: the first three.",
            metavar="R,G,B",
        ),
    ] = "",
    plane: Annotated[
        Literal["axial", "coronal", "sagittal"] | None,
        typer.Option(help="Of NIfTI and DICOM: whose slices are segmented. Default: those of the file."),
    ] = None,
    also: Annotated[
        str,
        typer.Option(
            help="Write also: probability (in [0, 1]: float16 NumPy files, of a GeoTIFF or a scan its own "
            "kind), coco (one instances.json), labelme (a JSON file for each image).",
            metavar="KIND,…",
        ),
    ] = "",
    shard: Annotated[
        str | None,
        typer.Option(
            help="Segment only the I-th of N shares of the images. Other runs, on any machine, take the "
            "others, into the same --out.",
            metavar="I/N",
        ),
    ] = None,
    ray: Annotated[
        int | None,
        typer.Option(
            help="Let Ray segment N shares, here or on its cluster (pip install 'kshot\\[ray]').",
            metavar="N",
            min=1,
        ),
    ] = None,
) -> None:
    """Segment images like the supports: a mask or labels, and an overlay, for each, and one contact sheet.

    Images are also GeoTIFFs, whose masks are GeoTIFFs, and NIfTI volumes and DICOM, whose masks are NIfTI.

    What an earlier run of the same command has done is kept: a stopped run goes on.

    Exit status: 0 all done, 1 some or all images failed (see failures.jsonl), 2 it could not begin,
    or the disk is full.
    """
    from kshot.io.raster_options import GEOTIFF_TILE, RasterOptions, parse_bands
    from kshot.predict.outputs import Outputs
    from kshot.predict.ray_tasks import segment_on_ray
    from kshot.predict.resume_log import settings_of
    from kshot.predict.runner import segment_all
    from kshot.predict.shards import Shard, parse_shard

    if shard is not None and ray is not None:
        raise KshotError("--shard takes one share of the images, --ray all of them. Give one of the two.")
    share = Shard(count=ray or 1) if shard is None else parse_shard(shard)
    raster_options = RasterOptions(parse_bands(bands), plane, tile or GEOTIFF_TILE, long_side)
    outputs = Outputs.from_paths(queries, out, frozenset(_words(also)), share)
    support_set = _read_support_set(support_pairs, support_file, support_images, classes, raster_options)
    support_set = support_set.with_negatives(negatives or [])
    segmenter = _load(
        model,
        image_size=image_size,
        backbone=backbone,
        backbone_weights=backbone_weights,
        tile=tile,
        long_side=long_side,
        device=device,
        engine=engine,
        precision=precision,
    )
    support_set.fit(segmenter)
    settings = settings_of(segmenter, support_set, raster_options, engine=engine, precision=precision)
    outputs.check_settings(settings)
    if ray is not None:
        raise typer.Exit(segment_on_ray(main, context.obj, ray, segmenter.device))
    num_failed = segment_all(segmenter, support_set, outputs, raster_options)
    raise typer.Exit(1 if num_failed else 0)


@app.command()
def suggest(
    unlabelled: Queries,
    support_pairs: SupportPairs = None,
    support_file: SupportFile = None,
    support_images: SupportImages = None,
    classes: Classes = "",
    count: Annotated[int, typer.Option(help="Photographs to suggest.", min=1)] = 5,
    model: Model = None,
    image_size: ImageSize = None,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which images to label next: those that would help most, beside the ones that are labelled.

    Exit status: 0 all were looked at, 1 some could not be read, 2 nothing could be done.
    """
    from kshot.io.images import list_images
    from kshot.predict.suggest import suggest as find

    labelled = {path.resolve() for path in support_pairs or []}
    images = [path for path, _ in list_images(unlabelled) if path.resolve() not in labelled]
    support_set = _read_support_set(support_pairs, support_file, support_images, classes)
    segmenter = _load(
        model, image_size=image_size, backbone=backbone, backbone_weights=backbone_weights, device=device
    )
    found = find(segmenter, support_set.classes, images, count)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        typer.echo("\n".join(map(str, found.label_next)))
        for path, reason in found.failures.items():
            typer.echo(f"{path}: failed: {reason}", err=True)
    raise typer.Exit(1 if found.failures else 0)


@app.command()
def info(
    method: Annotated[str, typer.Argument(help="prototype, hsnet or two-pass.")],
    backbone: Annotated[str, typer.Option(help="A backbone's name; see the README.")] = "efficientnet_lite0",
    backbones: Annotated[str, typer.Option(help="For hsnet: cls, sem or both.")] = "cls",
    num_base_classes: Annotated[
        int, typer.Option(help="Classes that the base learner knows (15 in PASCAL-5i, 60 in COCO-20i).")
    ] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how large a method is and where it taps its backbone; needs no weights."""
    from kshot.cli.describe import describe, to_text

    description = describe(method, backbone, backbones, num_base_classes)
    if as_json:
        import json

        typer.echo(json.dumps(description, indent=2))
    else:
        typer.echo(to_text(description))


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="Model that ships with kshot, a model's folder, or OWNER/NAME on the hub.")
    ],
    out: Annotated[Path, typer.Option(help="File to write.", metavar="FILE.onnx")],
    file_format: Annotated[Literal["onnx"], typer.Option("--format", help="The one there is.")] = "onnx",
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels of the graph's images; default the model's own.")
    ] = None,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = None,
) -> None:
    """Write a model as one ONNX graph that runs without kshot and torch, and check it; takes minutes.

    Exit status: 0 written, 2 not written: also if the graph differs from torch by more than 1e-4.
    """
    from kshot.export.onnx import export as write

    segmenter = _load(
        model, image_size=image_size, backbone=backbone, backbone_weights=backbone_weights, device="cpu"
    )
    name = Path(model).resolve().name if Path(model).is_dir() else model
    difference = write(segmenter, name, out)
    typer.echo(f"{out} ({file_format}) differs from torch by {difference:.1e} at most, on one example.")


add_training_verbs(app)
add_benchmark_verbs(app)
app.command()(serve)
app.add_typer(figure_app, name="figure")
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from kshot import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a user's mistake is one line and exit status 2, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a file may be no text
    try:
        app(_repeat_support(arguments), obj=arguments)
    except (KshotError, OSError) as error:  # OSError: a full disk, a folder that one may not write to
        typer.echo(f"kshot: {error}", err=True)
        sys.exit(2)


def _read_support_set(
    pairs: list[Path] | None,
    file: Path | None,
    images: Path | None,
    classes: str,
    raster_options: "RasterOptions | None" = None,
) -> "SupportSet":
    """Read the support set from --support or --supports."""
    from kshot.io.raster_options import RasterOptions
    from kshot.predict.support_set import read_annotated, read_masks

    if pairs and file is not None:
        raise KshotError(
            "--support and --supports exclude each other. Give all examples as --support IMAGE MASK, or put "
            "them into one folder or file for --supports."
        )
    if not pairs and file is None:
        raise KshotError("Give labelled examples: --support IMAGE MASK, or else --supports FILE_OR_FOLDER.")
    if pairs and len(pairs) % 2:
        raise KshotError("Every --support takes two files: an image and its mask.")
    if pairs and images is not None:
        raise KshotError("--support-images says where the photographs of --supports are; leave it out.")
    values = _class_values(classes, has_masks=bool(pairs))
    if file is not None:
        return read_annotated(file, images, tuple(values) or None)
    files = list(zip((pairs or [])[::2], (pairs or [])[1::2], strict=True))
    return read_masks(files, values, raster_options or RasterOptions())


def _load(model: str | None, **settings: Any) -> "Segmenter":
    """Load the named model, or the default one."""
    from kshot.methods.hub import DEFAULT_MODEL
    from kshot.segmenter import Segmenter

    return Segmenter.from_pretrained(model or DEFAULT_MODEL, **settings)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _class_values(text: str, *, has_masks: bool) -> dict[str, int | None]:
    """Read `cat=1,dog=2`, the values in masks; or `cat,dog`, which of the annotated classes are meant.

    Masks of one thing may have its name alone.
    """
    values: dict[str, int | None] = {}
    for part in _words(text):
        name, equals, value = part.rpartition("=")
        name = name.strip() if equals else part
        if not name or (equals and not value.strip().isdecimal()) or name in values:
            raise KshotError(
                f"--classes says '{part}'; it must be names and values such as cat=1,dog=2, or names "
                "alone, each once."
            )
        values[name] = int(value) if equals else None
    if not has_masks and any(value is not None for value in values.values()):
        raise KshotError(f"--classes says '{text}'; with --supports it must be names alone, such as cat,dog.")
    if has_masks and len(values) > 1 and None in values.values():
        raise KshotError(f"--classes says '{text}'; masks need names and values such as cat=1,dog=2.")
    return values


def _repeat_support(arguments: list[str]) -> list[str]:
    """Turn `--support IMAGE MASK` into `--support IMAGE --support MASK`: typer has no repeatable pairs."""
    expanded: list[str] = []
    for index, argument in enumerate(arguments):
        if index >= 2 and arguments[index - 2] == "--support" and not argument.startswith("--"):
            expanded.append("--support")
        expanded.append(argument)
    return expanded
