"""Make the models that ship with kshot: `make weights VOC=DIR COCO_MINI=DIR`, after
`make ablation`.

    python benchmarks/shipped.py --voc DIR --coco-mini DIR

Run it from the repository's root. The ablation's first two-pass row learns on, on all 15 base classes of
PASCAL-5i's fold 0, with the base learner that has seen 12 of them; so the other three are to it what novel
classes will be. It does so at 257 px first and then at 385, where small things can be seen: a second pass
that never saw so fine a grid gains nothing from it. `hsnet` is the ablation's row by B_cls, learning on in
the same way; it needs no base learner. `two-pass-plus` goes on from that. Its own base learner is the
ablation's, too, and two more, each without six of the classes that this one knows, read the episodes of those
classes: so each episode's class is to B_sem and H_cls what novel classes will be. The second half of its
training, and it itself, sharpen the second pass's soft mask. Then these and the ablation's rows go to
`src/kshot/models`, where they share that base learner, and the first three are scored beside prototypes of
the same backbone.

What ships was made by these commands with four differences: `two-pass` went on from an earlier row of the
ablation, whose features were not centred; the learning rate of its first part was
to reach 0 at step 2,500, and it was stopped at 1,500; that of the second of `hsnet` at step 9,000, and it was
stopped at 3,000; and `hsnet` and `two-pass-plus` were trained by two processes.
"""

import argparse
import shutil
from pathlib import Path

from ablation import RUNS
from first_numbers import HERE, coco_mini_manifest, run, voc_manifest

from kshot.methods.hub import CONFIG_FILE, WEIGHTS_FILE, base_learner_names, load_model, save_model
from kshot.models.imagenet_weights import read_state, state_sha256
from kshot.training.run_folder import CARD

MODELS = HERE.parent / "src" / "kshot" / "models"
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
"""Base learners, with their epochs, without the classes whose episodes they read."""
LEARNER = ("--base-learner", str(RUNS / "base_learner"))
ALL_LEARNERS = (
    *LEARNER,
    *(option for learner in OTHER_LEARNERS for option in ("--base-learner", str(learner))),
)
BY_CLS = ("--method", "hsnet", "--backbones", "cls", "--validate-episodes", "100")
STAGES = {
    COARSE: (*LEARNER, "--stage", "1500@257", "--seed", "2", "--start-from", str(RUNS / "two-pass_seed0")),
    FINAL: (
        *LEARNER,
        *("--stage", "300@385", "--batch", "4", "--lr", "5e-4", "--validate-every", "150"),
        *("--validate-episodes", "100", "--seed", "3", "--start-from", str(COARSE)),
    ),
    BEGUN: (
        *BY_CLS,
        *("--stage", "3400@257", "--validate-every", "1700", "--seed", "2"),
        *("--start-from", str(RUNS / "hsnet-cls_seed0")),
    ),
    HSNET: (
        *BY_CLS,
        *("--stage", "3000@257", "--validate-every", "3000", "--seed", "4", "--start-from", str(BEGUN)),
    ),
    CROSS_FITTED: (
        *ALL_LEARNERS,
        *("--stage", "2000@257", "--validate-every", "500", "--validate-episodes", "60", "--seed", "5"),
        *("--start-from", str(HSNET)),
    ),
    PLUS: (
        *ALL_LEARNERS,
        *("--sharpen-mask", "--stage", "2400@257", "--validate-every", "800", "--validate-episodes", "60"),
        *("--seed", "6", "--start-from", str(CROSS_FITTED)),
    ),
}
ROWS = {
    "two-pass": FINAL,
    "hsnet": HSNET,
    "two-pass-plus": PLUS,
    "ablation-two-pass": RUNS / "two-pass_seed0",
    "ablation-hsnet-both": RUNS / "hsnet-both_seed0",
    "ablation-hsnet-sem": RUNS / "hsnet-sem_seed0",
    "ablation-hsnet-cls": RUNS / "hsnet-cls_seed0",
}


def main() -> None:
    """Train what is missing, and write the shipped models' folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--coco-mini", type=Path, required=True)
    places = parser.parse_args()
    train(places.voc)
    base_learner = MODELS / "two-pass" / "base_learner"
    base_learner.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE, CARD):
        shutil.copy(RUNS / "base_learner" / name, base_learner / name)
    digest = state_sha256(read_state(base_learner / WEIGHTS_FILE))
    for name, source in ROWS.items():
        ship(
            source,
            MODELS / name,
            "base_learner" if name == "two-pass" else "../two-pass/base_learner",
            digest,
        )
    score("voc-train_fold0_1shot", "pascal", places.voc, voc_manifest(0, 1, places.voc))
    score("coco-mini-60_1shot", "coco-mini-60", places.coco_mini, coco_mini_manifest(1, 0))


def train(voc: Path) -> None:
    """Train the models that are not the ablation's, and the base learners that only train."""
    for out, (epochs, left_out) in OTHER_LEARNERS.items():
        if not (out / "metrics.json").exists():
            resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
            settings = ["--recipe", "lite", "--root", str(voc), "--no-exclude-holdout"]
            settings += [option for name in left_out for option in ("--exclude-class", name)]
            run("pretrain", *settings, "--epochs", epochs, "--epochs", "1", "--out", str(out), *resume)
    for out, options in STAGES.items():
        if not (out / "metrics.json").exists():
            resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
            settings = ["--recipe", "lite", "--root", str(voc), "--select-on", "nothing", *options]
            run("train", *settings, "--cache", f"runs/features/{out.name}", "--out", str(out), *resume)


def score(name: str, data: str, root: Path, manifest: Path) -> None:
    """Score what ships, and prototypes of its backbone, on the same episodes unless it is done."""
    for model in (
        ["two-pass"],
        ["hsnet"],
        ["two-pass-plus"],
        ["prototype", "--backbone", "efficientnet_lite2"],
    ):
        result = HERE / "results" / f"shipped_{model[0]}_{name}.json"
        if not result.exists():
            given = ["--manifest", str(manifest.relative_to(HERE.parent)), "--data", data]
            run("evaluate", "--model", *model, *given, "--root", str(root), "--json", str(result))


def ship(source: Path, folder: Path, base_learner: str, digest: str) -> None:
    """Write a run's model without its base learner, if it has one, but with its card."""
    config, method = load_model(source)
    if base_learner_names(method):
        config = config.model_copy(update={"base_learner": base_learner, "base_learner_sha256": digest})
    save_model(config, method, folder, half=True)
    shutil.copy(source / CARD, folder / CARD)


if __name__ == "__main__":
    main()
