"""`kshot evaluate`: score a model on a benchmark or on a suite of tasks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from kshot.cli.episodes import report_small_classes
from kshot.cli.options import (
    DATA_HELP,
    STDOUT,
    BackboneWeights,
    Device,
    Json,
    Model,
    ProtocolName,
    Root,
    check_json_file,
    load_segmenter,
    report,
)
from kshot.errors import DataError
from kshot.io.name_values import read_settings, setting_fault
from kshot.methods.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kshot.evaluation.settings import EvaluationSettings

EXAMPLES = (
    "kshot evaluate --data pascal --root VOC2012 --fold 0 --model two-pass --json two-pass_0.json",
    "kshot evaluate --data my-folder --shots 5 --protocol balanced --set image_size=257",
)


def evaluate(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help=f"{DATA_HELP[:-1]}; or tasks:DIR, a folder of such folders or a file that lists them.",
            metavar="NAME_OR_DIR",
        ),
    ],
    model: Model = DEFAULT_MODEL,
    backbone_weights: BackboneWeights = None,
    root: Root = None,
    fold: Annotated[int | None, typer.Option(help="0 to 3 on pascal and coco; default: 0.")] = None,
    shots: Annotated[
        int | None, typer.Option(help="Support images of each episode; default: 1.", min=1)
    ] = None,
    protocol_name: ProtocolName = None,
    num_episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes",
            help="Episodes of each seed; default: the protocol's. Of a support set of tasks: 10.",
            min=1,
        ),
    ] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(help="Run exactly these episodes (repeatable, a file for each seed).", metavar="FILE"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting (repeatable): seeds, split, image_size, scored_at, draws, backbone, "
            "workers or cache_gb; see docs/benchmarks.md.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    json_file: Json = None,
    device: Device = "auto",
) -> None:
    """Score a model: mIoU, FB-IoU and the IoU of each class, with 95 % intervals."""
    from kshot.data.benchmarks import benchmark_of, open_dataset
    from kshot.data.manifest import draw_manifests, read_manifest
    from kshot.data.tasks import PREFIX
    from kshot.evaluation.score import check_asked, choose_protocol

    changed = _read_evaluation_settings(settings)
    check_json_file(json_file)
    loading = {"backbone": changed.backbone, "backbone_weights": backbone_weights, "device": device}
    if data.startswith(PREFIX):
        useless = {"--root": root, "--fold": fold, "--protocol": protocol_name, "--manifest": manifest}
        useless |= {"--set split": changed.split, "--set scored_at": changed.scored_at}
        useless |= {"--set workers": changed.workers or None}
        _check_useless(useless)
        _evaluate_suite(
            Path(data.removeprefix(PREFIX)),
            shots or 1,
            num_episodes or 10,
            changed,
            model,
            loading,
            json_file,
            context.obj,
        )
        return
    if changed.draws is not None:
        raise DataError(f"--set draws is {changed.draws}, but only {PREFIX}DIR has draws. Leave it out.")
    given = [read_manifest(path) for path in manifest or []]
    protocol = choose_protocol(benchmark_of(data), given, protocol_name, num_episodes, changed.seeds)
    sizes = {"image_size": changed.image_size, "scored_at": changed.scored_at}
    protocol = protocol.model_copy(update={name: v for name, v in sizes.items() if v is not None})
    if given:  # all have the same fold, shots and split
        check_asked(given[0], fold=fold, shots=shots, split=changed.split)
    dataset = open_dataset(data, root)
    manifests = given or draw_manifests(data, protocol, fold=fold or 0, shots=shots or 1, split=changed.split)
    report_small_classes(manifests[0].left_out, manifests[0].shots)

    from kshot.evaluation.results import summary
    from kshot.evaluation.score import score_model
    from kshot.io.progress import progress

    segmenter = load_segmenter(model, **loading)
    with progress("Evaluating", "episodes") as on_progress:
        result = score_model(
            segmenter,
            dataset,
            manifests,
            protocol,
            name=model,
            num_workers=changed.workers,
            cache_gb=changed.cache_gb,
            arguments=context.obj,
            on_progress=on_progress,
        )
    _report(result, summary(result), json_file)


def _read_evaluation_settings(pairs: list[str] | None) -> "EvaluationSettings":
    from kshot.evaluation.settings import EvaluationSettings

    values = read_settings(pairs)
    try:
        return EvaluationSettings(**values)
    except ValidationError as error:
        raise DataError(setting_fault(error, EvaluationSettings.model_fields)) from error


def _check_useless(options: Mapping[str, object]) -> None:
    """Raise DataError for the first option that was given though a suite of tasks does not use it."""
    for option, value in options.items():
        if value is not None and value != []:
            first = value[0] if isinstance(value, list) else value
            raise DataError(f"{option} is {first}, but tasks:DIR does not use it. Leave it out.")


def _evaluate_suite(
    place: Path,
    shots: int,
    num_queries: int,
    settings: "EvaluationSettings",
    model: str,
    loading: dict[str, Any],
    json_file: Path | None,
    arguments: list[str],
) -> None:
    """Score a model on a suite of tasks. Problems of the tasks show before the model is loaded."""
    from kshot.data.tasks import FEWEST_QUERIES, draw_episodes, read_task_sets
    from kshot.io.progress import progress
    from kshot.io.provenance import record_provenance

    seeds = settings.seeds or (0,)
    if len(seeds) > 1:
        raise DataError(f"tasks:DIR takes one seed, but {len(seeds)} were given. Use --set draws for more.")
    provenance = record_provenance(arguments)
    sets = read_task_sets(place)
    drawn = draw_episodes(sets, shots, settings.draws or 3, num_queries, seeds[0])
    report_small_classes(drawn.left_out, shots, FEWEST_QUERIES)

    from kshot.evaluation.results import record_model
    from kshot.evaluation.suite import SegmenterRunner
    from kshot.evaluation.suite_results import score_suite, suite_summary

    segmenter = load_segmenter(model, image_size=settings.image_size, **loading)
    with progress("Evaluating", "episodes") as on_progress:
        result = score_suite(
            SegmenterRunner(segmenter),
            record_model(model, segmenter),
            sets,
            drawn,
            provenance,
            cache_gb=settings.cache_gb,
            on_progress=on_progress,
        )
    _report(result, suite_summary(result), json_file)


def _report(result: "BaseModel", lines: list[str], json_file: Path | None) -> None:
    """Report a result, then where it was written."""
    from kshot.evaluation.results import result_json

    report(lines, result_json(result), json_file)
    if json_file not in (None, STDOUT):
        typer.echo(f"Written to {json_file}")
