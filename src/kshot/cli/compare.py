"""`kshot compare`: the difference of two results on the same episodes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kshot.cli.options import Json, report
from kshot.errors import DataError

if TYPE_CHECKING:
    from kshot.evaluation.results import ModelRecord
    from kshot.evaluation.suite_results import PeerRecord

EXAMPLES = (
    "kshot compare hsnet_0.json two-pass_0.json",
    "kshot compare hsnet_0.json two-pass_0.json --json difference.json",
)


def compare(
    a: Annotated[Path, typer.Argument(help="Result of kshot evaluate.", metavar="A.json")],
    b: Annotated[Path, typer.Argument(help="Another, on the same episodes.", metavar="B.json")],
    json_file: Json = None,
) -> None:
    """Print how much higher B scores than A on the same episodes, with the paired 95 % interval."""
    from dataclasses import asdict

    from kshot.evaluation.comparison import compare as compare_results
    from kshot.evaluation.results import read_result
    from kshot.evaluation.suite_results import compare_suites, is_suite_result, read_suite_result

    are_suites = [is_suite_result(path) for path in (a, b)]
    if all(are_suites):
        suites = read_suite_result(a), read_suite_result(b)
        models, differences = [suite.model for suite in suites], compare_suites(*suites)
    elif any(are_suites):
        raise DataError(
            f"Only {a if are_suites[0] else b} is of a suite of tasks. Compare two results of one kind."
        )
    else:
        results = read_result(a), read_result(b)
        models, differences = [result.model for result in results], compare_results(*results)
    lines = [f"{letter}: {_describe(model)}" for letter, model in zip("AB", models, strict=True)]
    lines.append(f"{'':24} {'A':>7} {'B':>7}   B - A  95 % interval")
    for d in differences:
        low, high = (f"{100 * value:+.1f}" for value in d.interval)
        values = f"{100 * d.a:7.1f} {100 * d.b:7.1f} {100 * d.difference:+7.1f}"
        lines.append(f"{d.name:24} {values}  [{low}, {high}]")
    report(lines, json.dumps([asdict(d) for d in differences], indent=2), json_file)


def _describe(model: "ModelRecord | PeerRecord") -> str:
    """Return a compared model's name, backbone, and the episodes that its checkpoint was chosen on."""
    from kshot.data.protocols import SELECTION_NOTES
    from kshot.evaluation.results import ModelRecord

    if not isinstance(model, ModelRecord):
        return model.name
    chosen = model.config.selected_on
    return f"{model.name}, {model.config.backbone}{f' ({SELECTION_NOTES[chosen]})' if chosen else ''}"
