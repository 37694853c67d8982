"""The paper's Table 5 at a smaller size: are two backbones better than one, and two passes better than one?

    python benchmarks/ablation.py --voc DIR --coco-mini DIR [--only ROW]

Run from the repository's root. Five methods with one backbone (EfficientNet-Lite2) are trained on fold 0 of
PASCAL-5i without its held-out classes, on the same episodes in the same order. The methods of the paper's
claim are trained with two seeds. Each decides by argmax, as published, and is evaluated on held-out base
classes and on coco-mini-60. Runs are written to `runs/ablation` and can be resumed; existing files in
`benchmarks/results` are kept. With --only, rows can be made in parallel.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

from harness import MANIFESTS, coco_mini_manifest, draw_manifest, evaluate, make_parser, settings, train

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
    parser = make_parser(__doc__, "voc", "coco-mini", required=True)
    parser.add_argument("--only", choices=[*ROWS, "prototype"], help="one row; default all")
    given = parser.parse_args()
    recipe = ("--recipe", "lite", "--root", given.voc)
    # All rows share this base learner, trained on the base classes without the held-out ones.
    train("pretrain", RUNS / "base_learner", *recipe, *settings("exclude_holdout=true"))
    for name, row in ROWS.items():
        if given.only in (None, name):
            options = ("--base-learner", RUNS / "base_learner", *settings("cache=runs/features"))
            changed = settings(f"method={row.method}", f"backbones={row.backbones}", f"seed={row.seed}")
            train("train", RUNS / name, *recipe, *options, *changed)
            score(name, given)
    if given.only in (None, "prototype"):
        write_prototype()
        score("prototype", given)


def write_prototype() -> None:
    """Write a prototype model with the same backbone and size."""
    out = RUNS / "prototype"
    if not (out / CONFIG_FILE).exists():
        Segmenter.from_pretrained("prototype", backbone=BACKBONE, image_size=IMAGE_SIZE).save_pretrained(out)


def score(name: str, folders: argparse.Namespace) -> None:
    """Evaluate a row on both sets of episodes, with one and with five shots."""
    for shots, held_out_count, coco_count in ((1, 500, 1000), (5, 200, 300)):
        for data, root, episodes, manifest in (
            ("pascal", folders.voc, "held-out", held_out(shots, held_out_count, folders.voc)),
            ("coco-mini-60", folders.coco_mini, "coco-mini-60", coco_mini(shots, coco_count)),
        ):
            evaluate(f"ablation_{name}_{episodes}_{shots}shot.json", data, root, [manifest], RUNS / name)


def held_out(shots: int, count: int, voc: Path) -> Path:
    """Draw episodes of cats, horses and sofas, with another seed than those that select checkpoints."""
    path = MANIFESTS / f"held-out_fold0_{shots}shot.json"
    options = ("--holdout", "--shots", shots, "--protocol", "balanced", "--seed", 1)
    return draw_manifest(path, "pascal", *options, "--episodes", count, "--root", voc)


def coco_mini(shots: int, count: int) -> Path:
    """Draw episodes of coco-mini-60 for one seed: fewer with five shots, which take five times as long."""
    if count == 1000:
        return coco_mini_manifest(shots, 0)
    path = MANIFESTS / f"coco-mini-60_{shots}shot_seed0_{count}.json"
    return draw_manifest(path, "coco-mini-60", "--shots", shots, "--seed", 0, "--episodes", count)


if __name__ == "__main__":
    main()
