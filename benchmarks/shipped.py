"""Train the models that ship with kshot: `make weights VOC=DIR COCO_MINI=DIR`, after `make ablation`.

    python benchmarks/shipped.py --voc DIR --coco-mini DIR

Run from the repository's root.

- `two-pass` continues the ablation's first two-pass row on all 15 base classes of PASCAL-5i's fold 0, with
  the base learner that was trained on 12 of them: the other three are new to it, as novel classes will be.
  It trains at 257 px, then at 385 px, because a second pass gains nothing from a grid finer than it was
  trained on.
- `hsnet` continues the ablation's row with B_cls. It needs no base learner.
- `two-pass-plus` continues `hsnet` with three base learners: the ablation's, and two that were each trained
  without six of its classes. Each episode uses one that was not trained on its class (cross-fitting), so that
  the class is as new to B_sem and H_cls as novel classes will be. The second half of the training, and the
  model, sharpen the second pass's soft mask.

These models go to `src/kshot/pretrained`, the ablation's to `benchmarks/weights`; all share one base learner.
The shipped ones are evaluated beside prototypes of the same backbone.

The weights in the repository were made by these commands with four differences: `two-pass` started from an
earlier row of the ablation without centered features; the learning rate of its first part would have reached
0 at step 2,500, and training stopped at 1,500; that of the second part of `hsnet` at step 9,000, and training
stopped at 3,000; `hsnet` and `two-pass-plus` were trained by two processes.
"""

import os
import shutil
from pathlib import Path

from ablation import RUNS
from harness import ROOT, coco_mini_manifest, evaluate, make_parser, settings, train, voc_manifest

from kshot.methods.hub import CONFIG_FILE, WEIGHTS_FILE
from kshot.methods.saving import base_learner_names, load_model, save_model
from kshot.models.imagenet_weights import read_state, state_sha256
from kshot.training.run_folder import CARD

PRETRAINED, WEIGHTS = ROOT / "src/kshot/pretrained", ROOT / "benchmarks/weights"
COARSE = RUNS.parent / "shipped" / "two-pass-257"
FINAL = RUNS.parent / "shipped" / "two-pass-385"
BEGUN = RUNS.parent / "shipped" / "hsnet-257-begun"
HSNET = RUNS.parent / "shipped" / "hsnet-257"
CROSS_FITTED = RUNS.parent / "shipped" / "two-pass-cross-fitted"
PLUS = RUNS.parent / "shipped" / "two-pass-plus"
OTHER_LEARNERS = {
    RUNS.parent / "shipped" / "base-a": ("5", ("bus", "car", "chair", "motorbike", "train", "tvmonitor")),
    RUNS.parent / "shipped" / "base-b": (
        "10",
        ("cow", "diningtable", "dog", "person", "pottedplant", "sheep"),
    ),
}
"""Base learners for cross-fitting: epochs, and the classes that they are not trained on."""
LEARNER = ("--base-learner", str(RUNS / "base_learner"))
ALL_LEARNERS = (
    *LEARNER,
    *(option for learner in OTHER_LEARNERS for option in ("--base-learner", str(learner))),
)
BY_CLS = settings("method=hsnet", "backbones=cls", "validate_episodes=100")
STAGES = {
    COARSE: (*LEARNER, *settings("sizes=1500@257", "seed=2"), "--start-from", str(RUNS / "two-pass_seed0")),
    FINAL: (
        *LEARNER,
        *settings("sizes=300@385", "batch=4", "lr=5e-4", "validate_every=150"),
        *(*settings("validate_episodes=100", "seed=3"), "--start-from", str(COARSE)),
    ),
    BEGUN: (
        *BY_CLS,
        *settings("sizes=3400@257", "validate_every=1700", "seed=2"),
        *("--start-from", str(RUNS / "hsnet-cls_seed0")),
    ),
    HSNET: (
        *BY_CLS,
        *(*settings("sizes=3000@257", "validate_every=3000", "seed=4"), "--start-from", str(BEGUN)),
    ),
    CROSS_FITTED: (
        *ALL_LEARNERS,
        *settings("sizes=2000@257", "validate_every=500", "validate_episodes=60", "seed=5"),
        *("--start-from", str(HSNET)),
    ),
    PLUS: (
        *ALL_LEARNERS,
        *settings("sharpen_mask=true", "sizes=2400@257", "validate_every=800", "validate_episodes=60"),
        *(*settings("seed=6"), "--start-from", str(CROSS_FITTED)),
    ),
}
ROWS = {
    PRETRAINED / "two-pass": FINAL,
    PRETRAINED / "hsnet": HSNET,
    PRETRAINED / "two-pass-plus": PLUS,
    WEIGHTS / "ablation-two-pass": RUNS / "two-pass_seed0",
    WEIGHTS / "ablation-hsnet-both": RUNS / "hsnet-both_seed0",
    WEIGHTS / "ablation-hsnet-sem": RUNS / "hsnet-sem_seed0",
    WEIGHTS / "ablation-hsnet-cls": RUNS / "hsnet-cls_seed0",
}
SCORED = {
    "two-pass": (),
    "hsnet": (),
    "two-pass-plus": (),
    "prototype": settings("backbone=efficientnet_lite2"),
}
"""Models that are evaluated, with their options."""


def main() -> None:
    """Train what is missing, write the models' folders, and evaluate the shipped models."""
    folders = make_parser(__doc__, "voc", "coco-mini", required=True).parse_args()
    train_all(folders.voc)
    learner = PRETRAINED / "two-pass" / "base_learner"
    learner.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE, CARD):
        shutil.copy(RUNS / "base_learner" / name, learner / name)
    for folder, run in ROWS.items():
        write_model(run, folder, learner)
    sets = {
        "voc-train_fold0": ("pascal", folders.voc, [voc_manifest(0, 1, folders.voc)]),
        "coco-mini-60": ("coco-mini-60", folders.coco_mini, [coco_mini_manifest(1, 0)]),
    }
    for name, (data, root, manifests) in sets.items():
        for model, options in SCORED.items():
            evaluate(f"shipped_{model}_{name}_1shot.json", data, root, manifests, model, *options)


def train_all(voc: Path) -> None:
    """Train the models that the ablation lacks, and the base learners that are used for training only."""
    recipe = ("--recipe", "lite", "--root", voc)
    for out, (epochs, excluded) in OTHER_LEARNERS.items():
        phases = settings(f"phases.0.epochs={epochs}", "phases.1.epochs=1")
        classes = settings("exclude_holdout=false", f"excluded_classes={','.join(excluded)}")
        train("pretrain", out, *recipe, *classes, *phases)
    for out, options in STAGES.items():
        cache = settings(f"cache=runs/features/{out.name}")
        train("train", out, *recipe, *settings("select_on=null"), *options, *cache)


def write_model(run: Path, folder: Path, learner: Path) -> None:
    """Write a run's model and card; if it has a base learner, refer to the shared one."""
    config, method = load_model(run)
    if base_learner_names(method):
        digest = state_sha256(read_state(learner / WEIGHTS_FILE))
        changes = {"base_learner": os.path.relpath(learner, folder), "base_learner_sha256": digest}
        config = config.model_copy(update=changes)
    save_model(config, method, folder, half=True)
    shutil.copy(run / CARD, folder / CARD)


if __name__ == "__main__":
    main()
