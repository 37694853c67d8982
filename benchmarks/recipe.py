"""What each part of the recipe is worth: hsnet trained on with one thing changed, in equal processor time.

    python benchmarks/recipe.py --voc DIR --voc-dev DIR --tasks DIR --extra-data DIR [--only ROW ...]

Run it from the repository's root. Every row goes on from the shipped `hsnet` (rows named "scratch" begin with
random weights) for about ten minutes of one core, with a learning rate that falls to 0, and is scored on
PASCAL-5^0 of VOC2012-dev and on the tasks, one shot, three draws each. What is done already is not done
again. The table is written to `benchmarks/NOTES.md`.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

from dev_suite import TASKS_1, VOC, Run, score

from kshot.benchmark.suite_results import SuiteResult, compare_suites, read_suite_result
from kshot.benchmark.suite_scores import SIZES
from kshot.benchmark.table_writers import insert_between
from kshot.data.benchmarks import open_dataset
from kshot.data.tasks import pascal_set, read_task_sets
from kshot.pictures import write_text
from kshot.training.commands import extra_data_set
from kshot.training.loop import Machine
from kshot.training.meta_train import train
from kshot.training.recipes import EpisodeMix, SizeStage, TrainConfig, lite_general

RUNS = Path("runs/recipe")
RESULTS = Path("benchmarks/results/recipe")
NOTES = Path("benchmarks/NOTES.md")
START = "hsnet"

CLASSES, GENERAL = EpisodeMix(classes=1.0), lite_general().train.mix
DICE: dict[str, Any] = {"mix": CLASSES, "dice": 0.5}
STRIDE_16: dict[str, Any] = {"first_stride": 16}

ROWS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "images as they are": (220, 257, {"mix": None, "flip": True}),
    "views": (220, 257, {"mix": CLASSES}),
    "views, Dice": (220, 257, DICE),
    "views, Dice, head tap": (200, 257, {**DICE, "head_tap": True}),
    "views, Dice, no stride 8": (420, 257, {**DICE, **STRIDE_16}),
    "views, Dice, no stride 8, 385 px": (220, 385, {**DICE, **STRIDE_16}),
    "mix, Dice": (220, 257, {**DICE, "mix": GENERAL}),
    "mix, Dice, prior": (220, 257, {**DICE, "mix": GENERAL, "prior": True}),
    "mix, Dice, no stride 8, 385 px": (220, 385, {**DICE, **STRIDE_16, "mix": GENERAL}),
    "scratch, no stride 8": (420, 257, {**DICE, **STRIDE_16}),
    "scratch, no stride 8, expanded taps": (350, 257, {**DICE, **STRIDE_16, "taps": "expanded"}),
}
"""Steps of 8 episodes, image size, and what differs from the recipe."""


def main() -> None:
    """Train what is missing, score it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--voc-dev", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--extra-data", action="append", default=[])
    parser.add_argument("--only", nargs="+", choices=[START, *ROWS], default=[START, *ROWS])
    given = parser.parse_args()
    sets = {TASKS_1: read_task_sets(given.tasks), VOC: [pascal_set(given.voc_dev, 0)]}
    for row in given.only:
        if row != START and not (folder_of(row) / "metrics.json").exists():
            learn(row, given.voc, given.extra_data)
        for run, own in sets.items():
            if not run.file(slug(row), RESULTS).exists():
                name = row if row == START else f"{slug(row)}={folder_of(row)}"
                score(name, run, own, RESULTS, "python benchmarks/recipe.py")
    write_text(insert_between(NOTES.read_text(), "table-recipe", table()), NOTES)


def slug(row: str) -> str:
    """Write a row's name as a part of a file's name."""
    return row.replace(", ", "_").replace(" ", "-")


def folder_of(row: str) -> Path:
    """Give the folder of a row's run."""
    return RUNS / slug(row)


def config_of(row: str) -> TrainConfig:
    """Give a row's settings."""
    steps, size, changes = ROWS[row]
    fixed = {"method": "hsnet", "class_cap": 100, "flip": False, "lr": 5e-4, "warmup": 20, "ema": 0.98}
    fixed |= {"fusion": "paper", "base_stride": 8, "sharpened": None, "dice": 0.0, "select_on": None}
    stage = (SizeStage(steps=steps, image_size=size),)
    checks = {"sizes": stage, "validate_every": 10_000, "validate_episodes": 60}
    return lite_general().train.model_copy(update={**fixed, **checks, **changes})


def learn(row: str, voc: Path, extra: list[str]) -> None:
    """Train a row, or go on with it."""
    config, out = config_of(row), folder_of(row)
    train(
        config,
        open_dataset("pascal", voc),
        out,
        Machine("cpu", resume=(out / "checkpoint.pt").exists()),
        cache=Path("runs/features"),
        cache_gb=20,
        extra=dict(extra_data_set(text) for text in extra) if config.mix == GENERAL else {},
        start_from=None if row.startswith("scratch") else START,
        arguments=("recipe.py", row),
    )


def table() -> str:
    """Lay out all rows that are scored, with paired differences from the model that they started from."""
    bins = [f"{100 * low:g}-{100 * high:g} %" for low, high in pairwise(SIZES)]
    lines = [
        f"| hsnet, one shot | VOC2012-dev | change (95 %) | tasks | change (95 %) | {' | '.join(bins)} |",
        f"|---|---:|---:|---:|---:|{'---:|' * len(bins)}",
    ]
    for row in (START, *ROWS):
        if all(run.file(slug(row), RESULTS).exists() for run in (TASKS_1, VOC)):
            tasks = read_suite_result(TASKS_1.file(slug(row), RESULTS))
            sizes = " | ".join("" if one.iou is None else f"{100 * one.iou:.1f}" for one in tasks.by_size)
            lines.append(f"| {row} | {_cells(row, VOC)} | {_cells(row, TASKS_1)} | {sizes} |")
    note = "Mean IoU in percent, three support draws; by size: single images of the tasks."
    return "\n".join([*lines, "", note])


def _cells(row: str, run: Run) -> str:
    result: SuiteResult = read_suite_result(run.file(slug(row), RESULTS))
    if row == START:
        return f"{100 * result.iou:.1f} |"
    found = compare_suites(read_suite_result(run.file(START, RESULTS)), result)[0]
    low, high = found.interval
    return f"{100 * result.iou:.1f} | {100 * found.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


if __name__ == "__main__":
    main()
