"""Make the models that ship with kshot: `make weights VOC=DIR`, after `make ablation`.

    python benchmarks/shipped.py --voc DIR

Run it from the repository's root. The ablation's first two-pass row learns on, on all 15 base classes of
PASCAL-5i's fold 0, with the base learner that has seen 12 of them; so the other three are to it what novel
classes will be. Then it and the ablation's rows go to `src/kshot/models`, where they share that base learner.
"""

import argparse
import shutil
from pathlib import Path

from ablation import RUNS, calibrate
from first_numbers import HERE, run

from kshot.network.weights import read_state, state_sha256
from kshot.pretrained import CONFIG_FILE, WEIGHTS_FILE, base_learner_names, load_model, save_model
from kshot.training.run_folder import CARD

MODELS = HERE.parent / "src" / "kshot" / "models"
FINAL = RUNS.parent / "shipped" / "two-pass"
STAGES = ("2500@257",)
ROWS = {
    "two-pass": FINAL,
    "ablation-two-pass": RUNS / "two-pass_seed0",
    "ablation-hsnet-both": RUNS / "hsnet-both_seed0",
    "ablation-hsnet-sem": RUNS / "hsnet-sem_seed0",
    "ablation-hsnet-cls": RUNS / "hsnet-cls_seed0",
}


def main() -> None:
    """Train what is missing, and write the shipped models' folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voc", type=Path, required=True)
    train(parser.parse_args().voc)
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


def train(voc: Path) -> None:
    """Train the model that is to be the default."""
    if not (FINAL / "metrics.json").exists():
        resume = ["--resume"] if (FINAL / "checkpoint.pt").exists() else []
        stages = [part for stage in STAGES for part in ("--stage", stage)]
        settings = ["--recipe", "lite", "--root", str(voc), *stages, "--select-on", "nothing", "--seed", "2"]
        sources = ["--base-learner", str(RUNS / "base_learner"), "--start-from", str(RUNS / "two-pass_seed0")]
        run("train", *settings, *sources, "--cache", "runs/features", "--out", str(FINAL), *resume)
    calibrate(FINAL, voc)


def ship(source: Path, folder: Path, base_learner: str, digest: str) -> None:
    """Write a run's model without its base learner, if it has one, but with its card."""
    config, method = load_model(source)
    if base_learner_names(method):
        config = config.model_copy(update={"base_learner": base_learner, "base_learner_sha256": digest})
    save_model(config, method, folder, half=True)
    shutil.copy(source / CARD, folder / CARD)


if __name__ == "__main__":
    main()
