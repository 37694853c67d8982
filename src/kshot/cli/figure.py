"""`kshot figure`: the paper's figures, from result files or a manifest's episodes."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kshot.cli.options import (
    BackboneName,
    BackboneWeights,
    Data,
    Device,
    Json,
    Model,
    Root,
    check_json_file,
    examples,
    load_segmenter,
    report,
)
from kshot.errors import DataError
from kshot.methods.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from kshot.data.manifest import Manifest
    from kshot.data.sampling import Episode
    from kshot.reproduction.discriminability import Discriminability
    from kshot.reproduction.episode_rows import LoadedEpisode
    from kshot.segmenter import Segmenter
    from kshot.transforms import Resize

app = typer.Typer(help="Draw the paper's figures (PNG, PDF or SVG).", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Image to write: .png, .pdf or .svg.", metavar="FILE")]
ManifestFile = Annotated[Path, typer.Option(help="Episodes, from kshot episodes.", metavar="FILE")]
Episodes = Annotated[
    list[int] | None,
    typer.Option("--episode", help="Number of an episode, from 0 (repeatable); default 0 to 3."),
]
Models = Annotated[list[str] | None, typer.Option("--model", help="Model (repeatable); default prototype.")]
Backbones = Annotated[
    list[str] | None, typer.Option("--backbone", help="Backbone of prototype (repeatable).")
]
ImageSize = Annotated[
    int | None, typer.Option(help="Image side in pixels; default the protocol's or the model's.", min=1)
]
FIRST_EPISODES = (0, 1, 2, 3)

EPISODES = "--data pascal --root VOC2012 --manifest pascal-0.json"
"""Options of the examples."""


@app.callback()
def _check_matplotlib() -> None:
    if find_spec("matplotlib") is None:
        raise DataError("Figures need matplotlib: pip install matplotlib.")


@app.command(
    "discriminability",
    epilog=examples(
        f"kshot figure discriminability {EPISODES} --json resnet.json",
        "kshot figure discriminability resnet.json --out rho.png",
    ),
)
def draw_discriminability(
    context: typer.Context,
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="Files written with --json, one line each.", metavar="[RESULT.json…]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Image to write: .png, .pdf or .svg.", metavar="FILE")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Data of --manifest: a benchmark, or a folder.", metavar="NAME_OR_DIR"),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Measure a backbone on these episodes (from kshot episodes).", metavar="FILE"),
    ] = None,
    json_file: Json = None,
    root: Root = None,
    model: Model = DEFAULT_MODEL,
    which: Annotated[
        Literal["cls", "sem"], typer.Option(help="Measure its ImageNet backbone or its base learner's.")
    ] = "cls",
    label: Annotated[str | None, typer.Option(help="Name of the backbone in the figure.")] = None,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = None,
    image_size: ImageSize = None,
    device: Device = "auto",
) -> None:
    """Measure and draw how well each tap separates the object from its background (rho_k, Fig. 2 a, b).

    With --manifest, measures one backbone; --json saves the measurement. With --out, draws it and the saved
    RESULT.json files, one line for each backbone.
    """
    from kshot.reproduction.charts import discriminability_figure
    from kshot.reproduction.discriminability import read_discriminability
    from kshot.reproduction.style import save_figure

    if (out or json_file) is None:
        raise DataError("Nothing to write. Give --out for the figure, or --manifest and --json to measure.")
    if json_file is not None and manifest is None:
        raise DataError("--json saves a measurement. Give --manifest to measure, or remove --json.")
    found = [read_discriminability(path) for path in results or []]
    if manifest is not None:
        if data is None:
            raise DataError("--manifest needs --data: the benchmark or folder of its episodes.")
        segmenter = load_segmenter(model, backbone=backbone, backbone_weights=backbone_weights, device=device)
        found.append(
            _measure(segmenter, which, label, data, root, manifest, image_size, json_file, context.obj)
        )
    if out is not None:
        save_figure(discriminability_figure(found), out)


def _measure(
    segmenter: "Segmenter",
    which: Literal["cls", "sem"],
    label: str | None,
    data: str,
    root: Path | None,
    manifest: Path,
    image_size: int | None,
    json_file: Path | None,
    arguments: list[str],
) -> "Discriminability":
    """Measure one backbone on a manifest's episodes, print rho_k and save it if asked."""
    import time

    from kshot.data.benchmarks import open_dataset
    from kshot.data.manifest import read_manifest
    from kshot.evaluation.evaluator import EpisodeReader, check_files
    from kshot.evaluation.results import printed_name, result_json
    from kshot.io.progress import progress
    from kshot.io.provenance import record_provenance
    from kshot.reproduction.discriminability import (
        backbones_of,
        make_discriminability,
        measure_similarities,
    )

    check_json_file(json_file)
    start, provenance = time.monotonic(), record_provenance(arguments)
    dataset, drawn = open_dataset(data, root), read_manifest(manifest)
    check_files(dataset, drawn)
    backbones = backbones_of(segmenter.method)
    if which not in backbones:
        raise DataError(f"The model has no {which} backbone, only {', '.join(backbones)}.")
    transform = _resize(segmenter, drawn, image_size)
    reader = EpisodeReader(dataset, drawn.episodes, transform)
    with progress("Measuring", "episodes") as on_progress:
        similarities = measure_similarities(
            backbones[which], reader, segmenter.device, lambda done: on_progress(done, len(reader))
        )
    result = make_discriminability(
        backbones[which],
        label or f"B_{which} {printed_name(segmenter.config.backbone)}",
        *similarities,
        drawn,
        transform.size,
        provenance.with_duration(time.monotonic() - start),
    )
    rows = zip(result.taps, result.rho, strict=True)
    lines = [f"stride {s:2}  {tap:28} {'-' if rho is None else f'{rho:.3f}'}" for (s, tap), rho in rows]
    report(lines, result_json(result), json_file)
    return result


@app.command(
    "classes",
    epilog=examples(
        "kshot figure classes two-pass_0.json --out classes.png",
        "kshot figure classes hsnet_0.json two-pass_0.json --out classes.pdf",
    ),
)
def draw_classes(
    results: Annotated[list[Path], typer.Argument(help="Results of kshot evaluate.", metavar="RESULT.json…")],
    out: Out,
) -> None:
    """Draw each class's IoU with its 95 % interval, one colour per result."""
    from kshot.evaluation.results import read_result
    from kshot.reproduction.charts import class_bars_figure
    from kshot.reproduction.style import save_figure

    save_figure(class_bars_figure([read_result(path) for path in results]), out)


@app.command(
    "correlations",
    epilog=examples(
        f"kshot figure correlations {EPISODES} --out correlations.png",
        f"kshot figure correlations {EPISODES} --model two-pass --episode 3 --out correlations.png",
    ),
)
def draw_correlations(
    data: Data,
    manifest: ManifestFile,
    out: Out,
    root: Root = None,
    episode: Annotated[int, typer.Option(help="Number of the episode, from 0.")] = 0,
    model: Models = None,
    backbone: Backbones = None,
    backbone_weights: BackboneWeights = None,
    image_size: ImageSize = None,
    taps_per_stage: Annotated[int, typer.Option(help="Last taps drawn per stage.", min=1)] = 1,
    device: Device = "auto",
) -> None:
    """Draw where a query correlates with the support object, by depth and backbone (Fig. 2 c)."""
    from kshot.reproduction.discriminability import backbones_of
    from kshot.reproduction.episode_rows import correlation_row
    from kshot.reproduction.image_figures import correlation_figure
    from kshot.reproduction.style import save_figure

    drawn, ((_, loaded),) = _load_episodes(data, root, manifest, [episode])
    heatmaps = {}
    for name, segmenter in _segmenters(model, backbone, backbone_weights, device).items():
        transform = _resize(segmenter, drawn, image_size)
        for which, network in backbones_of(segmenter.method).items():
            row = correlation_row(network, loaded, transform, segmenter.device, taps_per_stage)
            heatmaps[f"B_{which} {name.removeprefix('prototype, ')}"] = row
    (support, ground_truth), *_ = loaded.supports
    save_figure(
        correlation_figure(loaded.query, support, ground_truth == 1, heatmaps, loaded.ground_truth), out
    )


@app.command(
    "passes",
    epilog=examples(
        f"kshot figure passes {EPISODES} --model two-pass --out passes.png",
        f"kshot figure passes {EPISODES} --model two-pass --episode 5 --episode 8 --out passes.pdf",
    ),
)
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
    """Draw first pass, second pass and result, one row per episode (Table 1)."""
    from kshot.reproduction.episode_rows import passes_row
    from kshot.reproduction.image_figures import passes_figure
    from kshot.reproduction.style import save_figure

    drawn, found = _load_episodes(data, root, manifest, episode)
    (segmenter,) = _segmenters([model], None, backbone_weights, device).values()
    transform = _resize(segmenter, drawn, image_size)
    rows = [passes_row(segmenter, loaded, transform, drawn.classes[e.class_id]) for e, loaded in found]
    save_figure(passes_figure(rows), out)


@app.command(
    "comparison",
    epilog=examples(
        f"kshot figure comparison {EPISODES} --model hsnet --model two-pass --out comparison.png",
        f"kshot figure comparison {EPISODES} --episode 5 --out comparison.png",
    ),
)
def draw_comparison(
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
    """Draw the predictions of several models beside the ground truth, one row per episode (Table 4)."""
    from kshot.reproduction.episode_rows import comparison_row
    from kshot.reproduction.image_figures import comparison_figure
    from kshot.reproduction.style import save_figure

    drawn, found = _load_episodes(data, root, manifest, episode)
    segmenters = _segmenters(model, backbone, backbone_weights, device)
    transforms = [_resize(segmenter, drawn, image_size) for segmenter in segmenters.values()]
    rows = [
        comparison_row(list(segmenters.values()), loaded, transforms, drawn.classes[e.class_id])
        for e, loaded in found
    ]
    save_figure(comparison_figure(rows, list(segmenters)), out)


def _load_episodes(
    data: str, root: Path | None, manifest: Path, indices: list[int] | None
) -> "tuple[Manifest, list[tuple[Episode, LoadedEpisode]]]":
    from kshot.data.benchmarks import open_dataset
    from kshot.data.manifest import read_manifest
    from kshot.reproduction.episode_rows import load_episode, select_episodes

    dataset, drawn = open_dataset(data, root), read_manifest(manifest)
    chosen = select_episodes(drawn, indices or FIRST_EPISODES[: len(drawn.episodes)])
    return drawn, [(episode, load_episode(dataset, episode)) for episode in chosen]


def _segmenters(
    models: list[str] | None, backbones: list[str] | None, backbone_weights: Path | None, device: str
) -> "dict[str, Segmenter]":
    """Load the models, keyed by their names in the figure; prototype once for each backbone."""
    from kshot.evaluation.results import printed_name

    segmenters = {}
    for model in models or [DEFAULT_MODEL]:
        given = backbones if backbones and model == "prototype" else [None]
        for backbone in given:
            segmenter = load_segmenter(
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
