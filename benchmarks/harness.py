"""Functions that the benchmark scripts share: arguments, kshot commands, manifests, results and tables."""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kshot.cli.main import main
from kshot.io.files import write_text
from kshot.io.provenance import record_provenance
from kshot.reproduction.table_writers import insert_between

ROOT = Path(__file__).parent.parent
MANIFESTS, RESULTS = ROOT / "benchmarks" / "manifests", ROOT / "benchmarks" / "results"


def make_parser(
    description: str | None, *folders: str, required: bool = False, into: bool = False
) -> argparse.ArgumentParser:
    """Return a parser with an option for each folder of data, and --into for the document of the table."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for folder in folders:
        parser.add_argument(f"--{folder}", type=Path, required=required, metavar="DIR")
    if into:
        parser.add_argument("--into", type=Path, metavar="FILE.md", help="document that contains the table")
    return parser


def kshot(*arguments: object) -> None:
    """Run a kshot command; exit if it fails."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as done:
        if done.code:
            raise


def settings(*pairs: str) -> list[str]:
    """Return the options of a command that change settings, given as NAME=VALUE."""
    return [option for pair in pairs for option in ("--set", pair)]


def train(verb: str, out: Path, *options: object) -> None:
    """Run `kshot train` or `kshot pretrain` unless it is done; resume it if it was stopped."""
    if not (out / "metrics.json").exists():
        resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
        kshot(verb, *options, "--out", out, *resume)


def draw_manifest(path: Path, data: str, *options: object) -> Path:
    """Draw a manifest unless it exists; return its path."""
    if not path.exists():
        kshot("episodes", "--data", data, *options, "--out", path)
    return path


def coco_mini_manifest(shots: int, seed: int) -> Path:
    """Draw 1,000 episodes of coco-mini-60 for a seed."""
    path = MANIFESTS / f"coco-mini-60_{shots}shot_seed{seed}.json"
    options = ("--shots", shots, "--seed", seed, "--protocol", "balanced")
    return draw_manifest(path, "coco-mini-60", *options)


def voc_manifest(fold: int, shots: int, voc: Path) -> Path:
    """Draw 500 episodes from the images of VOC's train list that are available: real images, but no test."""
    path = MANIFESTS / f"voc-train_fold{fold}_{shots}shot.json"
    options = ("--split", "train", "--fold", fold, "--shots", shots)
    options += ("--protocol", "balanced", "--episodes", 500, "--seed", 0, "--root", voc)
    return draw_manifest(path, "pascal", *options)


def evaluate(
    result: str, data: str, root: Path, manifests: Sequence[Path], model: object, *options: object
) -> None:
    """Evaluate a model on manifests unless the result file exists in `benchmarks/results`."""
    path = RESULTS / result
    if not path.exists():
        given = [option for one in manifests for option in ("--manifest", one.relative_to(ROOT))]
        kshot("evaluate", "--model", model, *options, "--data", data, "--root", root, *given, "--json", path)


def provenance(command: str) -> dict[str, Any]:
    """Return the provenance of a result that this command makes."""
    return record_provenance([]).model_dump() | {"command": command}


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a result file, or {} if it does not exist yet."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def write_json(found: dict[str, Any], path: Path, indent: int | None = 1) -> None:
    """Write a result file atomically."""
    write_text(json.dumps(found, indent=indent) + "\n", path)


def insert_table(document: Path | None, name: str, table: str) -> None:
    """Write a table between its markers in a document, if one is given."""
    if document is not None:
        write_text(insert_between(document.read_text(), name, table), document)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], words: int | None = None) -> str:
    """Return a Markdown table. words: number of left-aligned columns before right-aligned ones; None: all."""
    number = len(header) if words is None else words
    rule = "|" + "---|" * number + "---:|" * (len(header) - number)
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (header, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def iou(counts: Sequence[float]) -> float:
    """Return the IoU of an intersection and a union, the first two of `counts`."""
    return float(counts[0] / max(counts[1], 1))
