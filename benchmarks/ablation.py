"""Our size of the paper's Table 5: do two backbones beat one, and two passes one?

    python benchmarks/ablation.py --voc DIR --coco-mini DIR [--only RUN]

Run it from the repository's root. Five methods with one backbone (EfficientNet-Lite2), trained on fold 0 of
PASCAL-5i without its held-out classes, on the same episodes in the same order; those that the paper's claim
is about with two seeds. Each decides by argmax, as published, and is scored on held-out base classes and on
coco-mini-60. Runs go to `runs/ablation` and are resumed; results to `benchmarks/results`, where what is there
is kept. With --only, rows can be made two at a time.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from first_numbers import HERE, coco_mini_manifest, draw, run

from kshot.methods.hub import CONFIG_FILE
from kshot.segmenter import Segmenter

RUNS = Path("runs/ablation")
IMAGE_SIZE = 257
BACKBONE = "efficientnet_lite2"


class Row(NamedTuple):
    """A trained row of the table."""

    method: str
    backbones: str
    seed: int


ROWS = {
    "hsnet-cls_seed0": Row("hsnet", "cls", 0),
    "hsnet-sem_seed0": Row("hsnet", "sem", 0),
    "hsnet-both_seed0": Row("hsnet", "both", 0),
    "hsnet-both_seed1": Row("hsnet", "both", 1),
    "two-pass_seed0": Row("two-pass", "cls", 0),
    "two-pass_seed1": Row("two-pass", "cls", 1),
}


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--coco-mini", type=Path, required=True)
    parser.add_argument("--only", choices=[*ROWS, "prototype"], help="one row; default all")
    places = parser.parse_args()
    pretrain(places.voc)
    for name, row in ROWS.items():
        if places.only in (None, name):
            train(name, row, places.voc)
            score(name, places)
    if places.only in (None, "prototype"):
        write_prototype()
        score("prototype", places)


def pretrain(voc: Path) -> None:
    """Train the base learner that all rows share, on base classes without the held-out ones."""
    out = RUNS / "base_learner"
    if not (out / "metrics.json").exists():
        resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
        run(
            "pretrain",
            "--recipe",
            "lite",
            "--root",
            str(voc),
            "--exclude-holdout",
            "--out",
            str(out),
            *resume,
        )


def train(name: str, row: Row, voc: Path) -> None:
    """Train a row's meta-learner."""
    out = RUNS / name
    if not (out / "metrics.json").exists():
        resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
        options = ["--base-learner", str(RUNS / "base_learner"), "--cache", "runs/features"]
        chosen = ["--method", row.method, "--backbones", row.backbones, "--seed", str(row.seed)]
        settings = ["--recipe", "lite", "--root", str(voc)]
        run("train", *settings, *options, *chosen, "--out", str(out), *resume)


def write_prototype() -> None:
    """Write a prototype model of the same backbone and size."""
    out = RUNS / "prototype"
    if not (out / CONFIG_FILE).exists():
        Segmenter.from_pretrained("prototype", backbone=BACKBONE, image_size=IMAGE_SIZE).save_pretrained(out)


def score(name: str, places: argparse.Namespace) -> None:
    """Score a row on both sets of episodes, with one and with five shots."""
    for shots, held_out_count, coco_count in ((1, 500, 1000), (5, 200, 300)):
        manifest = held_out(shots, held_out_count, places.voc)
        evaluate(name, f"held-out_{shots}shot", "pascal", places.voc, manifest)
        manifest = coco_mini(shots, coco_count)
        evaluate(name, f"coco-mini-60_{shots}shot", "coco-mini-60", places.coco_mini, manifest)


def held_out(shots: int, count: int, voc: Path) -> Path:
    """Draw episodes of cats, horses and sofas: other ones than those that checkpoints are chosen on."""
    path = HERE / "manifests" / f"held-out_fold0_{shots}shot.json"
    options = ["--holdout", "--shots", str(shots), "--protocol", "balanced", "--seed", "1"]
    draw(path, "pascal", [*options, "--count", str(count), "--root", str(voc)])
    return path


def coco_mini(shots: int, count: int) -> Path:
    """Draw coco-mini-60's episodes of one seed: five shots take five times as long, so fewer of them."""
    if count == 1000:
        return coco_mini_manifest(shots, 0)
    path = HERE / "manifests" / f"coco-mini-60_{shots}shot_seed0_{count}.json"
    draw(path, "coco-mini-60", ["--shots", str(shots), "--seed", "0", "--count", str(count)])
    return path


def evaluate(name: str, episodes: str, data: str, root: Path, manifest: Path) -> None:
    """Score a row on a manifest unless it is done."""
    result = HERE / "results" / f"ablation_{name}_{episodes}.json"
    if not result.exists():
        given = ["--manifest", str(manifest.relative_to(HERE.parent))]
        asked = ["--model", str(RUNS / name), "--data", data, "--root", str(root)]
        run("evaluate", *asked, *given, "--json", str(result))


if __name__ == "__main__":
    main()
