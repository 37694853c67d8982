"""`kshot segment`: segment many images like the support set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kshot.cli.options import (
    MODEL,
    SUPPORT,
    BackboneName,
    BackboneWeights,
    Classes,
    Device,
    ImageSize,
    Model,
    SupportFile,
    SupportImages,
    SupportPairs,
    load_segmenter,
)
from kshot.errors import KshotError
from kshot.io.name_values import split_commas
from kshot.methods.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from kshot.io.raster_options import RasterOptions
    from kshot.predict.support_set import SupportSet

LARGE, RESULTS, SHARES = "Large images, maps and scans", "Results", "Many machines"

EXAMPLES = (
    "kshot segment images/ --support cup.jpg cup_mask.png --out results",
    "kshot segment images/ --support-set labels.json --classes cup,plate --out results --also coco",
)

Queries = Annotated[
    list[Path],
    typer.Argument(help="Images, GeoTIFFs, NIfTI or DICOM, or folders of them.", metavar="IMAGE_OR_DIR"),
]


def segment(
    context: typer.Context,
    queries: Queries,
    out: Annotated[
        Path, typer.Option(help="Folder for the results.", metavar="DIR", rich_help_panel=RESULTS)
    ],
    support_pairs: SupportPairs = None,
    support_set: SupportFile = None,
    support_images: SupportImages = None,
    classes: Classes = "",
    negatives: Annotated[
        list[Path] | None,
        typer.Option(
            "--negative",
            help="Image that does not contain the object (repeatable); for prototype.",
            metavar="IMAGE",
            rich_help_panel=SUPPORT,
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    image_size: ImageSize = None,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
    engine: Annotated[
        Literal["torch", "openvino"],
        typer.Option(
            help="openvino is faster on a CPU (pip install 'kshot\\[openvino]').", rich_help_panel=MODEL
        ),
    ] = "torch",
    precision: Annotated[
        Literal["fp32", "bf16"],
        typer.Option(
            help="bf16 is faster on CPUs that support it, and changes about one pixel in some hundreds.",
            rich_help_panel=MODEL,
        ),
    ] = "fp32",
    tile: Annotated[
        int | None,
        typer.Option(
            help="Segment larger images in windows of this side in pixels, to see details; default: none, "
            "and 1000 for GeoTIFFs.",
            rich_help_panel=LARGE,
        ),
    ] = None,
    long_side: Annotated[
        int | None,
        typer.Option(
            help="Segment larger images as if their longer side had this many pixels, in windows of --tile. "
            "Masks keep the size of the images.",
            rich_help_panel=LARGE,
        ),
    ] = None,
    bands: Annotated[
        str,
        typer.Option(
            help="Bands of GeoTIFFs for red, green and blue, or one; default: the first three.",
            metavar="R,G,B",
            rich_help_panel=LARGE,
        ),
    ] = "",
    plane: Annotated[
        Literal["axial", "coronal", "sagittal"] | None,
        typer.Option(help="Slices of NIfTI and DICOM; default: those of the file.", rich_help_panel=LARGE),
    ] = None,
    also: Annotated[
        str,
        typer.Option(
            help="Also write: probability (values in [0, 1], as float16 NumPy files, or like the input for "
            "GeoTIFFs and volumes); coco, labelme, yolo, cvat, label-studio or voc for images; geojson or "
            "gpkg for GeoTIFFs.",
            metavar="KIND,…",
            rich_help_panel=RESULTS,
        ),
    ] = "",
    instances: Annotated[
        str,
        typer.Option(
            help="Objects in what --also writes: split (cut touching ones apart), min_area=PIXELS (default "
            "16), tolerance=PIXELS (of polygons, default 0.5).",
            metavar="NAME[=VALUE],…",
            rich_help_panel=RESULTS,
        ),
    ] = "",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop at the first image that fails; default: list it in failures.jsonl and go on.",
            rich_help_panel=RESULTS,
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Segment share I of N of the images; other machines take the others, into the same --out.",
            metavar="I/N",
            rich_help_panel=SHARES,
        ),
    ] = None,
    ray: Annotated[
        int | None,
        typer.Option(
            help="Segment N shares with Ray, here or on its cluster (pip install 'kshot\\[ray]').",
            metavar="N",
            min=1,
            rich_help_panel=SHARES,
        ),
    ] = None,
) -> None:
    """Segment images like the support set: a mask or label map and an overlay of each, and a contact sheet.

    The masks of GeoTIFFs are GeoTIFFs, those of NIfTI volumes and DICOM are NIfTI.

    Run the same command again to continue a run that was stopped.

    Exit status: 0 all images are done, 1 some failed (see failures.jsonl), 2 nothing could be done, or the
    disk is full.
    """
    if shard is not None and ray is not None:
        raise KshotError("--shard takes one share of the images, --ray all of them. Give one of the two.")
    values = check_support_options(support_pairs, support_set, support_images, classes)

    from kshot.io.raster_options import GEOTIFF_TILE, RasterOptions, parse_bands
    from kshot.predict.outputs import Outputs
    from kshot.predict.shards import Shard, parse_shard
    from kshot.results.instances import InstanceOptions

    share = Shard(count=ray or 1) if shard is None else parse_shard(shard)
    raster_options = RasterOptions(parse_bands(bands), plane, tile or GEOTIFF_TILE, long_side)
    formats, options = frozenset(split_commas(also)), InstanceOptions.parse(instances)
    if instances and not formats - {"probability"}:
        raise KshotError("--instances is for the objects that --also writes. Add a format: --also coco.")
    outputs = Outputs.from_paths(queries, out, formats, share, options)
    files = find_support_files(support_pairs)
    supports = read_support_set(files, support_set, support_images, values, raster_options)
    supports = supports.with_negatives(negatives or [])
    segmenter = load_segmenter(
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
    from kshot.predict.ray_tasks import segment_on_ray
    from kshot.predict.resume_log import settings_of
    from kshot.predict.runner import segment_all

    supports.fit(segmenter)
    settings = settings_of(segmenter, supports, raster_options, engine=engine, precision=precision)
    outputs.check_settings(settings)
    if ray is not None:
        from kshot.cli.main import main

        raise typer.Exit(segment_on_ray(main, context.obj, ray, segmenter.device))
    num_failed = segment_all(segmenter, supports, outputs, raster_options, strict=strict)
    raise typer.Exit(1 if num_failed else 0)


def check_support_options(
    pairs: SupportPairs, file: Path | None, images: Path | None, classes: str
) -> dict[str, int | None]:
    """Return the classes and their values in masks. Raises KshotError for options that exclude each other."""
    if pairs and file is not None:
        raise KshotError(
            "--support and --support-set exclude each other. Give all examples as --support IMAGE MASK, or "
            "put them into one folder or file for --support-set."
        )
    if not pairs and file is None:
        raise KshotError("Give labelled examples: --support IMAGE MASK, or --support-set FILE_OR_DIR.")
    if pairs and images is not None:
        raise KshotError("--support-images is the folder of the images of --support-set. Leave it out.")
    return _class_values(classes, has_masks=bool(pairs))


def find_support_files(pairs: SupportPairs) -> list[tuple[Path, Path]]:
    """Return the images and masks that --support names; of two folders, all that have the same names."""
    from kshot.predict.support_set import pair_files

    return [found for image, mask in pairs or () for found in pair_files(Path(image), Path(mask))]


def read_support_set(
    pairs: list[tuple[Path, Path]],
    file: Path | None,
    images: Path | None,
    values: dict[str, int | None],
    raster_options: "RasterOptions | None" = None,
) -> "SupportSet":
    """Read the support set from --support or --support-set.

    pairs: from `find_support_files`. values: from `check_support_options`.
    """
    from kshot.io.raster_options import RasterOptions
    from kshot.predict.support_set import read_annotated, read_masks

    if file is not None:
        return read_annotated(file, images, tuple(values) or None)
    return read_masks(pairs, values, raster_options or RasterOptions())


def _class_values(text: str, *, has_masks: bool) -> dict[str, int | None]:
    """Read `cat=1,dog=2`, the values in masks, or `cat,dog`, the names of annotated classes.

    A single class of masks can be a name alone.
    """
    values: dict[str, int | None] = {}
    for part in split_commas(text):
        name, equals, value = part.rpartition("=")
        name = name.strip() if equals else part
        is_name = bool(name) and name.isprintable()
        if not is_name or (equals and not value.strip().isdecimal()) or name in values:
            raise KshotError(
                f"--classes says '{part}'; it must be names and values such as cat=1,dog=2, or names "
                "alone, each once."
            )
        values[name] = int(value) if equals else None
    if not has_masks and any(value is not None for value in values.values()):
        raise KshotError(
            f"--classes says '{text}'; with --support-set it must be names alone, such as cat,dog."
        )
    if has_masks and len(values) > 1 and None in values.values():
        raise KshotError(f"--classes says '{text}'; masks need names and values such as cat=1,dog=2.")
    return values
