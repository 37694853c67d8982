"""`kshot power` and `kshot figure …`: the paper's figures, from result files or a manifest's episodes."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kshot.cli.evaluation import BackboneWeights, Data, Device, Root
from kshot.errors import DataError

if TYPE_CHECKING:
    from kshot.data.manifest import Manifest
    from kshot.data.sampling import Episode
    from kshot.reproduction.draw import Opened
    from kshot.segmenter import Segmenter
    from kshot.transforms import Resize

app = typer.Typer(help="Draw the paper's figures (PNG, PDF or SVG).", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Picture to write: .png, .pdf or .svg.", metavar="FILE")]
ManifestFile = Annotated[Path, typer.Option(help="Episodes, as kshot episodes writes them.", metavar="FILE")]
Episodes = Annotated[
    list[int] | None, typer.Option("--episode", help="Which of the manifest's, from 0; repeat for more.")
]
Models = Annotated[list[str] | None, typer.Option("--model", help="A model; repeat for more.")]
Backbones = Annotated[
    list[str] | None, typer.Option("--backbone", help="For prototype: its backbone; repeat for more.")
]
ImageSize = Annotated[
    int | None, typer.Option(help="Another side in pixels than the protocol's or the model's.", min=1)
]
FIRST_EPISODES = (0, 1, 2, 3)


@app.callback()
def _check_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise DataError("Figures need matplotlib: pip install matplotlib.")


def power(
    data: Data,
    manifest: ManifestFile,
    json_file: Annotated[Path, typer.Option("--json", help="Where to write it.", metavar="FILE")],
    context: typer.Context,
    root: Root = None,
    model: Annotated[str, typer.Option(help="Model whose backbone is measured.")] = "prototype",
    which: Annotated[
        Literal["cls", "sem"], typer.Option(help="Its ImageNet backbone, or its base learner's.")
    ] = "cls",
    label: Annotated[str | None, typer.Option(help="How the figure names it.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Another backbone, for prototype.")] = None,
    backbone_weights: BackboneWeights = None,
    image_size: ImageSize = None,
    device: Device = "auto",
) -> None:
    """Measure how well each tap of a backbone tells the object from its background (rho_k, Fig. 2)."""
    import time

    from kshot.data.benchmarks import open_dataset
    from kshot.data.manifest import read_manifest
    from kshot.evaluation.evaluator import EpisodeReader, check_files
    from kshot.evaluation.results import check_place, printed_name, write_result
    from kshot.io.progress import progress
    from kshot.io.provenance import record_provenance
    from kshot.reproduction.discriminability import backbones_of, make_power, measure_power
    from kshot.segmenter import Segmenter

    check_place(json_file)
    start, provenance = time.monotonic(), record_provenance(context.obj)
    dataset, drawn = open_dataset(data, root), read_manifest(manifest)
    check_files(dataset, drawn)
    segmenter = Segmenter.from_pretrained(
        model, backbone=backbone, backbone_weights=backbone_weights, device=device
    )
    found = backbones_of(segmenter.method)
    if which not in found:
        raise DataError(f"Model {model} has no {which} backbone, only {', '.join(found)}.")
    transform = _resize(segmenter, drawn, image_size)
    reader = EpisodeReader(dataset, drawn.episodes, transform)
    with progress("Measuring", "episodes") as on_progress:
        measured = measure_power(
            found[which], reader, segmenter.device, lambda done: on_progress(done, len(reader))
        )
    made = make_power(
        found[which],
        label or f"B_{which} {printed_name(segmenter.config.backbone)}",
        *measured,
        drawn,
        transform.size,
        provenance.with_duration(time.monotonic() - start),
    )
    write_result(made, json_file)
    for (stride, tap), rho in zip(made.taps, made.rho, strict=True):
        typer.echo(f"stride {stride:2}  {tap:28} {'-' if rho is None else f'{rho:.3f}'}")


@app.command("power")
def draw_power(
    powers: Annotated[list[Path], typer.Argument(help="Files of kshot power.", metavar="POWER.json…")],
    out: Out,
) -> None:
    """Draw rho_k of each tap, one line a backbone (Fig. 2 a, b)."""
    from kshot.reproduction.charts import power_figure
    from kshot.reproduction.discriminability import read_power
    from kshot.reproduction.style import save_figure

    save_figure(power_figure([read_power(path) for path in powers]), out)


@app.command("classes")
def draw_classes(
    results: Annotated[list[Path], typer.Argument(help="Results of kshot evaluate.", metavar="RESULT.json…")],
    out: Out,
) -> None:
    """Draw each class's IoU with its 95 % interval, one colour a result."""
    from kshot.evaluation.results import read_result
    from kshot.reproduction.charts import class_bars_figure
    from kshot.reproduction.style import save_figure

    save_figure(class_bars_figure([read_result(path) for path in results]), out)


@app.command("correlations")
def draw_correlations(
    data: Data,
    manifest: ManifestFile,
    out: Out,
    root: Root = None,
    episode: Annotated[int, typer.Option(help="Which of the manifest's, from 0.")] = 0,
    model: Models = None,
    backbone: Backbones = None,
    backbone_weights: BackboneWeights = None,
    image_size: ImageSize = None,
    taps_per_stage: Annotated[int, typer.Option(help="How many of the last taps of each stage.", min=1)] = 1,
    device: Device = "auto",
) -> None:
    """Draw where a query correlates with its support's object, by depth and backbone (Fig. 2 c)."""
    from kshot.reproduction.discriminability import backbones_of
    from kshot.reproduction.draw import correlation_row
    from kshot.reproduction.panels import correlation_figure
    from kshot.reproduction.style import save_figure

    drawn, ((_, opened),) = _open(data, root, manifest, [episode])
    heatmaps = {}
    for name, segmenter in _segmenters(model, backbone, backbone_weights, device).items():
        transform = _resize(segmenter, drawn, image_size)
        for which, network in backbones_of(segmenter.method).items():
            row = correlation_row(network, opened, transform, segmenter.device, taps_per_stage)
            heatmaps[f"B_{which} {name.removeprefix('prototype, ')}"] = row
    (support, ground_truth), *_ = opened.supports
    save_figure(
        correlation_figure(opened.query, support, ground_truth == 1, heatmaps, opened.ground_truth), out
    )


@app.command("passes")
def draw_passes(
    data: Data,
    manifest: ManifestFile,
    model: Annotated[str, typer.Option(help="A two-pass model.")],
    out: Out,
    root: Root = None,
    episode: Episodes = None,
    backbone_weights: BackboneWeights = None,
    image_size: ImageSize = None,
    device: Device = "auto",
) -> None:
    """Draw first pass, second pass and result, an episode a row (Table 1)."""
    from kshot.reproduction.draw import passes_row
    from kshot.reproduction.panels import passes_figure
    from kshot.reproduction.style import save_figure

    drawn, found = _open(data, root, manifest, episode)
    (segmenter,) = _segmenters([model], None, backbone_weights, device).values()
    transform = _resize(segmenter, drawn, image_size)
    rows = [passes_row(segmenter, opened, transform, drawn.classes[e.class_id]) for e, opened in found]
    save_figure(passes_figure(rows), out)


@app.command("panels")
def draw_panels(
    data: Data,
    manifest: ManifestFile,
    out: Out,
    root: Root = None,
    episode: Episodes = None,
    model: Models = None,
    backbone: Backbones = None,
    backbone_weights: BackboneWeights = None,
    image_size: ImageSize = None,
    device: Device = "auto",
) -> None:
    """Draw several models' answers beside the ground truth, an episode a row (Table 4)."""
    from kshot.reproduction.draw import panel_row
    from kshot.reproduction.panels import panels_figure
    from kshot.reproduction.style import save_figure

    drawn, found = _open(data, root, manifest, episode)
    segmenters = _segmenters(model, backbone, backbone_weights, device)
    transforms = [_resize(segmenter, drawn, image_size) for segmenter in segmenters.values()]
    rows = [
        panel_row(list(segmenters.values()), opened, transforms, drawn.classes[e.class_id])
        for e, opened in found
    ]
    save_figure(panels_figure(rows, list(segmenters)), out)


def _open(
    data: str, root: Path | None, manifest: Path, indices: list[int] | None
) -> "tuple[Manifest, list[tuple[Episode, Opened]]]":
    from kshot.data.benchmarks import open_dataset
    from kshot.data.manifest import read_manifest
    from kshot.reproduction.draw import open_episode, pick

    dataset, drawn = open_dataset(data, root), read_manifest(manifest)
    chosen = pick(drawn, indices or FIRST_EPISODES[: len(drawn.episodes)])
    return drawn, [(episode, open_episode(dataset, episode)) for episode in chosen]


def _segmenters(
    models: list[str] | None, backbones: list[str] | None, backbone_weights: Path | None, device: str
) -> "dict[str, Segmenter]":
    """Load models by the names that a figure gives them; prototype once for each backbone."""
    from kshot.evaluation.results import printed_name
    from kshot.segmenter import Segmenter

    segmenters = {}
    for model in models or ["prototype"]:
        exchanged: list[str | None] = [*backbones] if backbones and model == "prototype" else [None]
        for backbone in exchanged:
            segmenter = Segmenter.from_pretrained(
                model, backbone=backbone, backbone_weights=backbone_weights, device=device
            )
            name = f"{Path(model).name}, {printed_name(segmenter.config.backbone)}"
            if name in segmenters:
                raise DataError(f"Two models would be called '{name}' in the figure. Rename a folder.")
            segmenters[name] = segmenter
    return segmenters


def _resize(segmenter: "Segmenter", manifest: "Manifest", image_size: int | None) -> "Resize":
    from kshot.data.protocols import preset
    from kshot.transforms import Resize

    protocol = preset(manifest.protocol, manifest.benchmark)
    return Resize(image_size or protocol.image_size or segmenter.config.image_size, protocol.fit)
