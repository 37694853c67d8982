"""What each part of the recipe is worth: hsnet trained on with one thing changed, in equal processor time.

    python benchmarks/recipe.py --voc DIR --voc-dev DIR --tasks DIR --extra-data DIR [--only ROW ...]

Run it from the repository's root. Every row goes on from the shipped `hsnet` (rows named "scratch" begin with
random weights) for about ten minutes of one core, with a learning rate that falls to 0, and is scored on
PASCAL-5^0 of VOC2012-dev and on the tasks, one shot, three draws each. What is done already is not done
again. The table is written to `benchmarks/NOTES.md`.
"""

import argparse
from pathlib import Path
from typing import Any

from kshot.data.benchmarks import open_dataset
from kshot.training.commands import _extra_data
from kshot.training.loop import Machine
from kshot.training.meta_train import train
from kshot.training.recipes import EpisodeMix, SizeStage, TrainConfig, lite_general

RUNS = Path("runs/recipe")

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
    "mix, Dice, no stride 8, 385 px": (220, 385, {**DICE, **STRIDE_16, "mix": GENERAL}),
    "scratch, no stride 8": (420, 257, {**DICE, **STRIDE_16}),
    "scratch, no stride 8, expanded taps": (350, 257, {**DICE, **STRIDE_16, "taps": "expanded"}),
}
"""Steps of 8 episodes, image size, and what differs from the recipe."""


def config_of(row: str) -> TrainConfig:
    """Give a row's settings."""
    steps, size, changes = ROWS[row]
    fixed = {"method": "hsnet", "class_cap": 100, "flip": False, "lr": 5e-4, "warmup": 20, "ema": 0.98}
    fixed |= {"fusion": "paper", "base_stride": 8, "sharpened": None, "dice": 0.0, "select_on": None}
    stage = (SizeStage(steps=steps, image_size=size),)
    checks = {"sizes": stage, "validate_every": 10_000, "validate_episodes": 60}
    return lite_general().train.model_copy(update={**fixed, **checks, **changes})


def folder_of(row: str) -> Path:
    """Give the folder of a row's run."""
    return RUNS / row.replace(", ", "_").replace(" ", "-")


def main() -> None:
    """Train what is missing, and score it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--voc-dev", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--extra-data", action="append", default=[])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    given = parser.parse_args()
    for row in given.only:
        out = folder_of(row)
        if (out / "metrics.json").exists():
            continue
        config = config_of(row)
        train(
            config,
            open_dataset("pascal", given.voc),
            out,
            Machine("cpu", resume=(out / "checkpoint.pt").exists()),
            cache=Path("runs/features"),
            cache_gb=20,
            extra=dict(_extra_data(text) for text in given.extra_data) if config.mix == GENERAL else {},
            start_from=None if row.startswith("scratch") else "hsnet",
            arguments=("python", "benchmarks/recipe.py", "--only", row),
        )


if __name__ == "__main__":
    main()
