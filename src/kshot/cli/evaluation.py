"""The verbs of the benchmarks, one function each."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from kshot.errors import DataError
from kshot.evaluation.feature_store import CACHE_GB

if TYPE_CHECKING:
    from kshot.evaluation.results import ModelRecord
    from kshot.evaluation.suite_results import PeerRecord
    from kshot.segmenter import Segmenter

DATA_HELP = "pascal, coco, fss1000, coco-mini-60, or a folder of your own."
EVALUATED_HELP = f"{DATA_HELP[:-1]}; or tasks:DIR, a folder of such folders or a file that lists them."
Name = Annotated[str, typer.Argument(help=DATA_HELP, metavar="NAME")]
Data = Annotated[str, typer.Option(help=DATA_HELP, metavar="NAME")]
Root = Annotated[Path | None, typer.Option(help="Where the benchmark's files are.", metavar="DIR")]
Fold = Annotated[int, typer.Option(help="0 to 3 on pascal and coco.")]
Split = Annotated[str | None, typer.Option(help="train, val or test; default what is tested on.")]
Shots = Annotated[int, typer.Option(help="Supports of each episode.", min=1)]
ProtocolName = Annotated[
    str | None, typer.Option("--protocol", help="hsnet, bam, pfenet or balanced; see docs/benchmarks.md.")
]
Workers = Annotated[int, typer.Option(help="Processes that read ahead; they cannot change a result.", min=0)]
CacheGB = Annotated[float, typer.Option("--cache-gb", help="Memory for features, in GiB.", min=0)]
ImageSize = Annotated[int | None, typer.Option(help="Another side in pixels than the protocol's.", min=1)]
BackboneName = Annotated[str | None, typer.Option(help="Another backbone, for prototype.")]
BackboneWeights = Annotated[Path | None, typer.Option(help="File with its ImageNet weights.", metavar="FILE")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, …")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result there.", metavar="FILE")]


def episodes(
    data: Name,
    out: Annotated[Path, typer.Option(help="Manifest to write.", metavar="FILE.json")],
    fold: Fold = 0,
    shots: Shots = 1,
    protocol_name: ProtocolName = None,
    count: Annotated[int | None, typer.Option(help="Number of episodes; default the protocol's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default the protocol's first.")] = None,
    split: Split = None,
    holdout: Annotated[
        bool,
        typer.Option(
            "--holdout",
            help="Draw episodes of the fold's holdout classes, to choose a model on them.",
        ),
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(help="Draw only from the photographs that lie here; not needed.", metavar="DIR"),
    ] = None,
) -> None:
    """Write down a benchmark's episodes. Needs no images: the field's lists ship with kshot."""
    from kshot.data.benchmarks import benchmark_of, open_dataset, read_fold
    from kshot.data.manifest import draw_manifest, write_manifest
    from kshot.data.protocols import default_protocol, preset
    from kshot.evaluation.selection import selection_fold

    benchmark = benchmark_of(data)
    protocol = preset(protocol_name or default_protocol(benchmark), benchmark)
    if count is not None:
        protocol = protocol.model_copy(update={"num_episodes": count})
    present = None if root is None else open_dataset(data, root)
    if holdout and split not in (None, "train"):
        raise DataError(f"--holdout draws from the train lists, but --split is {split}. Leave it out.")
    pairs = selection_fold(benchmark, fold, "base") if holdout else read_fold(data, fold, split)
    seed = protocol.seeds[0] if seed is None else seed
    manifest = draw_manifest(pairs, protocol, shots, seed, present)
    write_manifest(manifest, out)
    _name_left_out(manifest.left_out, shots)
    typer.echo(f"{len(manifest.episodes)} episodes in {out}, sha256 {manifest.sha256}")


def evaluate(
    context: typer.Context,
    data: Annotated[str, typer.Option(help=EVALUATED_HELP, metavar="NAME")],
    model: Annotated[
        str, typer.Option(help="Model that ships, a model's folder, or OWNER/NAME.")
    ] = "prototype",
    root: Root = None,
    fold: Annotated[int | None, typer.Option(help="0 to 3 on pascal and coco; default 0.")] = None,
    shots: Annotated[int | None, typer.Option(help="Supports of each episode; default 1.", min=1)] = None,
    protocol_name: ProtocolName = None,
    episodes: Annotated[
        int | None,
        typer.Option(help="Episodes of each seed; default the protocol's. tasks: of each draw; default 10."),
    ] = None,
    draws: Annotated[
        int | None, typer.Option(help="Support sets of each task of tasks:DIR; default 3.", min=1)
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeat for more; default the protocol's.")] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(help="Run precisely these episodes; repeat for more seeds.", metavar="FILE"),
    ] = None,
    split: Split = None,
    scored_at: Annotated[
        Literal["network", "original"] | None, typer.Option(help="Another size than the protocol's.")
    ] = None,
    image_size: ImageSize = None,
    json_file: Json = None,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
    workers: Workers = 0,
    cache_gb: CacheGB = CACHE_GB,
) -> None:
    """Score a model: mIoU, FB-IoU and each class's IoU, with 95 % intervals."""
    from kshot.data.benchmarks import benchmark_of, open_dataset
    from kshot.data.manifest import read_manifest
    from kshot.data.tasks import PREFIX
    from kshot.evaluation.results import check_place, summary, write_result
    from kshot.evaluation.score import check_asked, choose_protocol, draw_manifests, score_model
    from kshot.io.progress import progress
    from kshot.segmenter import Segmenter

    if json_file is not None:
        check_place(json_file)

    def load(size: int | None = None) -> Segmenter:
        return Segmenter.from_pretrained(
            model, image_size=size, backbone=backbone, backbone_weights=backbone_weights, device=device
        )

    if data.startswith(PREFIX):
        senseless = {"root": root, "fold": fold, "protocol": protocol_name, "manifest": manifest}
        senseless |= {"split": split, "scored-at": scored_at, "workers": workers or None}
        _check_left_out(senseless)
        asked = _Suite(Path(data.removeprefix(PREFIX)), shots or 1, draws or 3, episodes or 10, seed or [0])
        _evaluate_suite(asked, model, lambda: load(image_size), json_file, cache_gb, context.obj)
        return
    if draws is not None:
        raise DataError(f"--draws is {draws}, but only {PREFIX}DIR has draws. Leave it out.")
    given = [read_manifest(path) for path in manifest or []]
    protocol = choose_protocol(benchmark_of(data), given, protocol_name, episodes, tuple(seed or ()))
    changes = {"image_size": image_size, "scored_at": scored_at}
    protocol = protocol.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if given:  # all alike, by now
        check_asked(given[0], fold=fold, shots=shots, split=split)
    dataset = open_dataset(data, root)
    manifests = given or draw_manifests(data, fold or 0, split, protocol, shots or 1)
    segmenter = load()
    _name_left_out(manifests[0].left_out, manifests[0].shots)
    with progress("Evaluating", "episodes") as on_progress:
        result = score_model(
            segmenter,
            model,
            dataset,
            manifests,
            protocol,
            num_workers=workers,
            cache_gb=cache_gb,
            arguments=context.obj,
            on_progress=on_progress,
        )
    typer.echo("\n".join(summary(result)))
    if json_file is not None:
        write_result(result, json_file)
        typer.echo(f"Written to {json_file}")


class _Suite(NamedTuple):
    """What to draw from a suite of tasks."""

    place: Path
    shots: int
    draws: int
    queries: int
    seeds: list[int]


def _check_left_out(senseless: Mapping[str, object]) -> None:
    """Raise DataError for the first option that was given though a suite of tasks has no use for it."""
    for option, value in senseless.items():
        if value is not None and value != []:
            first = value[0] if isinstance(value, list) else value
            raise DataError(f"--{option} is {first}, but tasks:DIR has no use for it. Leave it out.")


def _evaluate_suite(
    asked: _Suite,
    name: str,
    load: Callable[[], "Segmenter"],
    json_file: Path | None,
    cache_gb: float,
    arguments: list[str],
) -> None:
    """Score a model on a suite of tasks; what is wrong with the tasks shows before the model is loaded."""
    from kshot.data.tasks import FEWEST_QUERIES, draw_episodes, read_task_sets
    from kshot.evaluation.results import record_model, write_result
    from kshot.evaluation.suite import SegmenterRunner
    from kshot.evaluation.suite_results import score_suite, suite_summary
    from kshot.io.progress import progress
    from kshot.io.provenance import record_provenance

    if len(asked.seeds) > 1:
        raise DataError(
            f"tasks:DIR takes one --seed, but {len(asked.seeds)} were given. Use --draws for more."
        )
    provenance = record_provenance(arguments)
    sets = read_task_sets(asked.place)
    drawn = draw_episodes(sets, asked.shots, asked.draws, asked.queries, asked.seeds[0])
    _name_left_out(drawn.left_out, asked.shots, FEWEST_QUERIES)
    segmenter = load()
    with progress("Evaluating", "episodes") as on_progress:
        result = score_suite(
            SegmenterRunner(segmenter),
            record_model(name, segmenter),
            sets,
            drawn,
            provenance,
            cache_gb=cache_gb,
            on_progress=on_progress,
        )
    typer.echo("\n".join(suite_summary(result)))
    if json_file is not None:
        write_result(result, json_file)
        typer.echo(f"Written to {json_file}")


def compare(
    a: Annotated[Path, typer.Argument(help="Result of kshot evaluate.", metavar="A.json")],
    b: Annotated[Path, typer.Argument(help="Another, on the same episodes.", metavar="B.json")],
    json_file: Json = None,
) -> None:
    """Say by how much B scores above A on the same episodes, with the paired 95 % interval."""
    from dataclasses import asdict

    from kshot.evaluation.compare import compare as compare_results
    from kshot.evaluation.results import read_result
    from kshot.evaluation.suite_results import compare_suites, is_suite_result, read_suite_result
    from kshot.io.files import write_text

    of_suites = [is_suite_result(path) for path in (a, b)]
    if all(of_suites):
        suites = read_suite_result(a), read_suite_result(b)
        models, differences = [suite.model for suite in suites], compare_suites(*suites)
    elif any(of_suites):
        raise DataError(f"Only {a if of_suites[0] else b} is of a suite of tasks. Compare two of one kind.")
    else:
        results = read_result(a), read_result(b)
        models, differences = [result.model for result in results], compare_results(*results)
    for letter, model in zip("AB", models, strict=True):
        typer.echo(f"{letter}: {_described(model)}")
    typer.echo(f"{'':24} {'A':>7} {'B':>7}   B - A  95 % interval")
    for d in differences:
        low, high = (f"{100 * value:+.1f}" for value in d.interval)
        values = f"{100 * d.a:7.1f} {100 * d.b:7.1f} {100 * d.difference:+7.1f}"
        typer.echo(f"{d.name:24} {values}  [{low}, {high}]")
    if json_file is not None:
        write_text(json.dumps([asdict(d) for d in differences], indent=2) + "\n", json_file)


def _described(model: "ModelRecord | PeerRecord") -> str:
    """Name a compared model, its backbone, and what its checkpoint was chosen on."""
    from kshot.data.protocols import SELECTION_NOTES
    from kshot.evaluation.results import ModelRecord

    if not isinstance(model, ModelRecord):
        return model.name
    chosen = model.config.selected_on
    return f"{model.name}, {model.config.backbone}{f' ({SELECTION_NOTES[chosen]})' if chosen else ''}"


def choose(
    models: Annotated[list[Path], typer.Argument(help="Folders of checkpoints.", metavar="MODEL_DIR…")],
    data: Data,
    root: Annotated[Path, typer.Option(help="Where the benchmark's files are.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="Folder for the chosen model.", metavar="DIR")],
    fold: Fold = 0,
    select_on: Annotated[
        Literal["base", "novel"],
        typer.Option(
            help="Episodes of held-out base classes, or of the fold's novel ones (the field's habit)."
        ),
    ] = "base",
    episodes: Annotated[int, typer.Option(help="Episodes to choose on.", min=1)] = 200,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
    workers: Workers = 0,
    cache_gb: CacheGB = CACHE_GB,
) -> None:
    """Choose the best of several checkpoints, and write down in the model what it was chosen on."""
    from kshot.data.benchmarks import open_dataset
    from kshot.data.protocols import SELECTION_NOTES
    from kshot.evaluation.score import score_model
    from kshot.evaluation.selection import check_holdout_classes, selection_fold, selection_manifest
    from kshot.io.progress import progress
    from kshot.methods.hub import save_model
    from kshot.segmenter import Segmenter

    dataset = open_dataset(data, root)
    manifest, protocol = selection_manifest(selection_fold(data, fold, select_on), episodes, dataset)
    scored = []
    for path in models:
        segmenter = Segmenter.from_pretrained(path, backbone_weights=backbone_weights, device=device)
        if select_on == "base":
            check_holdout_classes(data, fold, segmenter.config.base_classes)
        with progress(path.name, "episodes") as on_progress:
            result = score_model(
                segmenter,
                path.name,
                dataset,
                [manifest],
                protocol,
                num_workers=workers,
                cache_gb=cache_gb,
                on_progress=on_progress,
            )
        typer.echo(f"{100 * result.miou:5.1f} % mIoU  {path}")
        scored.append((result.miou, segmenter, path))
    _, best, path = max(scored, key=lambda item: item[0])
    save_model(best.config.model_copy(update={"selected_on": select_on}), best.method, out)
    typer.echo(f"{path} is written to {out}: {SELECTION_NOTES[select_on]}.")


def calibrate(
    model: Annotated[Path, typer.Argument(help="Folder of a model; its config is changed.", metavar="DIR")],
    data: Data,
    root: Root = None,
    fold: Fold = 0,
    episodes: Annotated[int, typer.Option(help="Episodes of base classes to choose on.", min=1)] = 300,
    backbone_weights: BackboneWeights = None,
    device: Device = "auto",
) -> None:
    """Choose the probability from which a model calls a pixel foreground, on a fold's base classes."""
    from kshot.data.benchmarks import open_dataset
    from kshot.evaluation.thresholds import score_thresholds
    from kshot.io.progress import progress
    from kshot.methods.hub import CONFIG_FILE, read_config, write_config
    from kshot.segmenter import Segmenter

    config = read_config(model / CONFIG_FILE)
    dataset = open_dataset(data, root)
    segmenter = Segmenter.from_pretrained(model, backbone_weights=backbone_weights, device=device)
    with progress("Calibrating", "episodes") as on_progress:
        scores = score_thresholds(segmenter, dataset, data, fold, episodes, on_progress)
    best = max(scores, key=lambda threshold: scores[threshold])
    for threshold, miou in scores.items():
        marks = [" chosen"] * (threshold == best) + [" before"] * (threshold == config.threshold)
        typer.echo(f"{threshold:.2f} {100 * miou:5.1f} % mIoU{','.join(marks)}")
    write_config(config.model_copy(update={"threshold": best}), model / CONFIG_FILE)


def table(
    which: Annotated[
        Literal["2", "3", "5", "ablation", "list"],
        typer.Argument(
            help="A table of the paper, with its printed rows; methods side by side; a list of any results."
        ),
    ],
    results: Annotated[
        list[Path] | None, typer.Argument(help="Results of kshot evaluate.", metavar="RESULT.json…")
    ] = None,
    form: Annotated[
        Literal["markdown", "latex", "csv"], typer.Option("--format", help="How to write it.")
    ] = "markdown",
    out: Annotated[
        Path | None, typer.Option(help="Write it there, not to the screen.", metavar="FILE")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(help="Put it between <!-- begin table-WHICH --> and <!-- end … -->.", metavar="FILE"),
    ] = None,
) -> None:
    """Lay out the paper's tables with rows of ours, an ablation, or a list; all from result files."""
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


def _name_left_out(left_out: dict[str, int], shots: int, queries: int = 1) -> None:
    if left_out:
        named = ", ".join(f"{name} ({number})" for name, number in left_out.items())
        what = "an episode" if queries == 1 else "a task"
        typer.echo(f"Left out, with fewer than the {shots + queries} images of {what}: {named}.", err=True)


def add_to(app: typer.Typer) -> None:
    """Give a command these verbs."""
    for verb in (episodes, evaluate, compare, choose, calibrate, table):
        app.command()(verb)
