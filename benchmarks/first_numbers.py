"""Evaluate `prototype`, which needs no training, on real images: the baseline for all other methods.

    python benchmarks/first_numbers.py --coco-mini DIR --voc DIR

Run from the repository's root. Writes one result file each to `benchmarks/results` and skips existing ones: a
stopped run can be resumed. Missing manifests are drawn into `benchmarks/manifests`.
"""

from itertools import product
from pathlib import Path

from harness import RESULTS, ROOT, coco_mini_manifest, evaluate, kshot, make_parser, settings, voc_manifest

BACKBONES = ("efficientnet_lite0", "efficientnet_lite2")
SHOTS = (1, 5)
SEEDS = (0, 1, 2)


def main() -> None:
    """Run what is missing."""
    folders = make_parser(__doc__, "coco-mini", "voc", required=True).parse_args()
    for backbone, shots in product(BACKBONES, SHOTS):
        options = settings(f"backbone={backbone}")
        name = f"prototype_{backbone}_coco-mini-60_{shots}shot.json"
        manifests = [coco_mini_manifest(shots, seed) for seed in SEEDS]
        evaluate(name, "coco-mini-60", folders.coco_mini, manifests, "prototype", *options)
    for backbone in BACKBONES:
        measure_discriminability(backbone, folders.coco_mini)
    for backbone, shots, fold in product(BACKBONES, SHOTS, range(4)):
        options = settings(f"backbone={backbone}")
        name = f"prototype_{backbone}_voc-train_fold{fold}_{shots}shot.json"
        manifests = [voc_manifest(fold, shots, folders.voc)]
        evaluate(name, "pascal", folders.voc, manifests, "prototype", *options)


def measure_discriminability(backbone: str, root: Path) -> None:
    """Measure rho_k of one backbone unless its result file exists."""
    result = RESULTS / f"discriminability_{backbone}_coco-mini-60.json"
    if not result.exists():
        data = ("--data", "coco-mini-60", "--root", root)
        manifest = coco_mini_manifest(1, 0).relative_to(ROOT)
        options = ("--backbone", backbone, *data, "--manifest", manifest)
        kshot("figure", "discriminability", *options, "--json", result)


if __name__ == "__main__":
    main()
