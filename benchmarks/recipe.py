"""What each part of the recipe is worth: a network trained with one thing changed, in equal processor time.

    python benchmarks/recipe.py --voc DIR --voc-dev DIR --tasks DIR --extra-data DIR [--only ROW ...]

Run it from the repository's root. A row goes on from the shipped model that leads its table, or begins with
random weights ("scratch"), for about ten minutes of one core, with a learning rate that falls to 0. It is
scored on PASCAL-5^0 of VOC2012-dev and on the tasks, one shot, three draws each, on fewer queries than the
development table has. What is done already is not done again. The tables are written to
`benchmarks/NOTES.md`.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from dev_suite import Run, score

from kshot.cli.train import extra_data_set
from kshot.data.benchmarks import open_dataset
from kshot.data.tasks import pascal_set, read_task_sets
from kshot.evaluation.suite_results import compare_suites, read_suite_result
from kshot.evaluation.suite_scores import SIZES
from kshot.io.files import write_text
from kshot.reproduction.table_writers import insert_between
from kshot.training.meta_train import train
from kshot.training.recipes import EpisodeMix, RuntimeArgs, SizeStage, TrainConfig, lite_general

RUNS = Path("runs/recipe")
RESULTS = Path("benchmarks/results/recipe")
NOTES = Path("benchmarks/NOTES.md")
TASKS, VOC = Run("tasks", 1, 2), Run("voc-dev", 1, 20)

CLASSES, GENERAL = EpisodeMix(classes=1.0), lite_general().train.mix
DICE: dict[str, Any] = {"mix": CLASSES, "dice": 0.5}  # what the recipe had when most rows were trained
MIX = {**DICE, "mix": GENERAL}
STRIDE_16: dict[str, Any] = {"first_stride": 16}


class Row(NamedTuple):
    """steps: of 8 episodes, as many as fit into the time. changes: what differs from the recipe."""

    steps: int
    image_size: int
    changes: dict[str, Any]


HSNET = {
    "images as they are": Row(150, 257, {"mix": None, "flip": True}),
    "views": Row(150, 257, {"mix": CLASSES}),
    "views, Dice": Row(150, 257, DICE),
    "views, Dice, prior": Row(145, 257, {**DICE, "prior": True}),
    "mix, Dice, prior, kinds of pairs": Row(145, 257, {**MIX, "prior": True}),
    "mix, 4 times the Dice, prior, kinds of pairs": Row(145, 257, {**MIX, "prior": True, "dice": 2.0}),
    "mix, 16 times the Dice, prior, kinds of pairs": Row(145, 257, {**MIX, "prior": True, "dice": 8.0}),
}
SCRATCH = {
    "scratch": Row(150, 257, MIX),
    "scratch, prior": Row(145, 257, {**MIX, "prior": True}),
    "scratch, no stride 8": Row(290, 257, {**MIX, **STRIDE_16}),
    "scratch, no stride 8, 385 px": Row(150, 385, {**MIX, **STRIDE_16}),
}
TWO_PASS = {
    "fusion of the paper": Row(70, 257, {**MIX, "method": "two-pass", "fusion": "paper"}),
    "fusion of both passes": Row(70, 257, {**MIX, "method": "two-pass", "fusion": "both-passes"}),
}
ROWS = HSNET | SCRATCH | TWO_PASS
EXPANDED_TAPS = "scratch, no stride 8, expanded taps"
GONE = ("views, Dice, head tap", "mix, Dice", "mix, Dice, prior")
"""What was tried and removed, as the expanded taps were: the classifier's last features as a tap, and a mix
whose images become grey or negatives each on its own. The code is that of the result files' commits."""

UNDER_WAY = ("two-pass under way, step 100", "two-pass-general under way, step 100")
"""Rows of trainings that go on for days, as they stood."""

TABLES = {"hsnet": (*HSNET, *GONE, *SCRATCH, EXPANDED_TAPS), "two-pass-plus": (*TWO_PASS, *UNDER_WAY)}
"""Rows by the shipped model that they go on from and are compared with."""


def main() -> None:
    """Train what is missing, score it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--voc-dev", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--extra-data", action="append", default=[])
    every = [*TABLES, *ROWS]
    parser.add_argument("--only", nargs="*", choices=[*every, *UNDER_WAY], default=every)
    parser.add_argument("--folder", type=Path, help="where the model of the one row of --only lies")
    given = parser.parse_args()
    sets = {TASKS: read_task_sets(given.tasks), VOC: [pascal_set(given.voc_dev, 0)]}
    for row in given.only:
        if row in ROWS and not (folder_of(row) / "metrics.json").exists():
            learn(row, given.voc, given.extra_data)
        for run, own in sets.items():
            if not run.file(slug(row), RESULTS).exists():
                folder = given.folder or folder_of(row)
                name = row if row in TABLES else f"{slug(row)}={folder}"
                score(name, run, own, RESULTS, "python benchmarks/recipe.py")
    text = NOTES.read_text()
    for start in TABLES:
        text = insert_between(text, f"table-recipe-{start}", table(start))
    write_text(text, NOTES)


def slug(row: str) -> str:
    """Write a row's name as a part of a file's name."""
    return row.replace(", ", "_").replace(" ", "-")


def folder_of(row: str) -> Path:
    """Give the folder of a row's run."""
    return RUNS / slug(row)


def config_of(row: str) -> TrainConfig:
    """Give a row's settings."""
    steps, size, changes = ROWS[row]
    fixed: dict[str, Any] = {"method": "hsnet", "class_cap": 100, "flip": False, "lr": 5e-4, "warmup": 20}
    fixed |= {
        "ema": 0.98,
        "prior": False,
        "fusion": "paper",
        "base_stride": 16 if row in TWO_PASS else 8,
        "sharpen_mask": None,
        "dice": 0.0,
        "select_on": None,
    }
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
        RuntimeArgs(device="cpu", resume=(out / "checkpoint.pt").exists()),
        extra=dict(extra_data_set(text) for text in extra) if config.mix == GENERAL else {},
        start_from=None if row in SCRATCH else "two-pass-plus" if row in TWO_PASS else "hsnet",
        arguments=("recipe.py", row),
    )


def table(start: str) -> str:
    """Lay out the rows that are scored, with paired differences from the model `start`."""
    bins = [f"{100 * low:g}-{100 * high:g} %" for low, high in pairwise(SIZES)]
    lines = [
        f"| one shot | VOC2012-dev | change (95 %) | tasks | change (95 %) | {' | '.join(bins)} |",
        f"|---|---:|---:|---:|---:|{'---:|' * len(bins)}",
    ]
    for row in (start, *TABLES[start]):
        cells = [_cells(row, run, start) for run in (VOC, TASKS)]
        if any(cell != UNKNOWN for cell in cells):
            lines.append(f"| {row} | {' | '.join(cells)} | {' | '.join(_sizes(row, len(bins)))} |")
    note = "Mean IoU in percent, three support draws; by size: single images of the tasks."
    return "\n".join([*lines, "", note])


UNKNOWN = " | "


def _cells(row: str, run: Run, start: str) -> str:
    if not all(run.file(slug(one), RESULTS).exists() for one in (row, start)):
        return UNKNOWN
    result = read_suite_result(run.file(slug(row), RESULTS))
    if row == start:
        return f"{100 * result.iou:.1f} |"
    found = compare_suites(read_suite_result(run.file(start, RESULTS)), result)[0]
    low, high = found.interval
    return f"{100 * result.iou:.1f} | {100 * found.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _sizes(row: str, count: int) -> list[str]:
    """Write the mean IoU of single images of the tasks, by size."""
    path = TASKS.file(slug(row), RESULTS)
    if not path.exists():
        return [""] * count
    return ["" if one.iou is None else f"{100 * one.iou:.1f}" for one in read_suite_result(path).by_size]


if __name__ == "__main__":
    main()
