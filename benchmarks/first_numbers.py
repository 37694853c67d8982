"""Score `prototype`, which learns nothing, on real photographs: the numbers that everything later must beat.

    python benchmarks/first_numbers.py --coco-mini DIR --voc DIR

Run it from the repository's root. It writes one file for each in `benchmarks/results`; what is there is
kept, so that a stopped run goes on. Manifests in `benchmarks/manifests` are drawn if they are missing.
"""

import argparse
from itertools import product
from pathlib import Path

from kshot.cli.main import main as kshot

HERE = Path(__file__).parent
BACKBONES = ("efficientnet_lite0", "efficientnet_lite2")
SHOTS = (1, 5)
SEEDS = (0, 1, 2)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--coco-mini", type=Path, required=True)
    parser.add_argument("--voc", type=Path, required=True)
    places = parser.parse_args()
    for backbone, shots in product(BACKBONES, SHOTS):
        manifests = [coco_mini_manifest(shots, seed) for seed in SEEDS]
        evaluate(f"coco-mini-60_{shots}shot", "coco-mini-60", places.coco_mini, backbone, manifests)
    for backbone in BACKBONES:
        measure_discriminability(backbone, places.coco_mini)
    for backbone, shots, fold in product(BACKBONES, SHOTS, range(4)):
        manifest = voc_manifest(fold, shots, places.voc)
        evaluate(f"voc-train_fold{fold}_{shots}shot", "pascal", places.voc, backbone, [manifest])


def coco_mini_manifest(shots: int, seed: int) -> Path:
    """Draw coco-mini-60's episodes: 1,000 of each seed."""
    path = HERE / "manifests" / f"coco-mini-60_{shots}shot_seed{seed}.json"
    options = ["--shots", str(shots), "--seed", str(seed), "--protocol", "balanced"]
    draw(path, "coco-mini-60", options)
    return path


def voc_manifest(fold: int, shots: int, voc: Path) -> Path:
    """Draw 500 episodes of the train list's photographs that are there: no test, but real."""
    path = HERE / "manifests" / f"voc-train_fold{fold}_{shots}shot.json"
    options = ["--split", "train", "--fold", str(fold), "--shots", str(shots)]
    options += ["--protocol", "balanced", "--count", "500", "--seed", "0", "--root", str(voc)]
    draw(path, "pascal", options)
    return path


def draw(path: Path, data: str, options: list[str]) -> None:
    """Draw a manifest unless it is there."""
    if not path.exists():
        run("episodes", data, *options, "--out", str(path))


def evaluate(name: str, data: str, root: Path, backbone: str, manifests: list[Path]) -> None:
    """Score one backbone on manifests unless it is done."""
    result = HERE / "results" / f"prototype_{backbone}_{name}.json"
    if not result.exists():
        given = [part for path in manifests for part in ("--manifest", str(path.relative_to(HERE.parent)))]
        options = ["--model", "prototype", "--backbone", backbone, "--data", data, "--root", str(root)]
        run("evaluate", *options, *given, "--json", str(result))


def measure_discriminability(backbone: str, root: Path) -> None:
    """Measure rho_k of one backbone unless its result file exists."""
    result = HERE / "results" / f"discriminability_{backbone}_coco-mini-60.json"
    if not result.exists():
        manifest = str(coco_mini_manifest(1, 0).relative_to(HERE.parent))
        options = ["--data", "coco-mini-60", "--root", str(root), "--manifest", manifest]
        run("figure", "discriminability", "--backbone", backbone, *options, "--json", str(result))


def run(*arguments: str) -> None:
    """Run a kshot command; stop at the first that fails."""
    try:
        kshot(list(arguments))
    except SystemExit as done:
        if done.code:
            raise


if __name__ == "__main__":
    main()
