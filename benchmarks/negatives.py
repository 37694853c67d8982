"""Do photographs without the object make fewer mistakes?

    python benchmarks/negatives.py --coco-mini DIR [--into docs/mistakes.md]

Run it from the repository's root. Of each class of coco-mini-60 one photograph is labelled. Of twenty that do
not show it, those are negatives in which most is found, as a person would choose them. It is then looked
for in up to ten other photographs that show it, and in forty that do not. What is measured already is not
measured again: a run that was stopped goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot.data.base import Dataset
from kshot.data.base_classes import present
from kshot.data.benchmarks import open_dataset, read_fold
from kshot.data.sampling import shuffled
from kshot.evaluation.metrics import count_pixels, mean_interval
from kshot.io.files import write_text
from kshot.io.images import read_image
from kshot.io.provenance import record_provenance
from kshot.methods.prototype import Prototype
from kshot.models.backbones import FeaturePyramid
from kshot.reproduction.table_writers import insert_between
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import Support

RESULT = Path("benchmarks/results/negatives.json")
SEEDS = range(3)
NEGATIVES = (0, 1, 2, 5)
POOL, ABSENT, SHOWING = 20, 40, 10
"""Photographs from which negatives are chosen; those without and with the object that are tested on."""
MIN_SHARE, MIN_IMAGES = 0.01, 4
"""Of a photograph that an object covers, and photographs of a class, below which they are left out."""
GRID = 104
"""Side at which answers are measured where there is nothing to find."""

Photographs = dict[str, FeaturePyramid]


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--coco-mini", type=Path)
    parser.add_argument("--into", type=Path)
    given = parser.parse_args()
    if given.coco_mini is not None:
        measure(given.coco_mini)
    if given.into is not None:
        text = insert_between(
            given.into.read_text(), "table-negatives", table(json.loads(RESULT.read_text()))
        )
        write_text(text, given.into)


def measure(root: Path) -> None:
    """Write the result file, after each class."""
    segmenter = Segmenter.from_pretrained("prototype")
    method, size = segmenter.method, segmenter.config.image_size
    assert isinstance(method, Prototype)
    dataset = open_dataset("coco-mini-60", root)
    fold = present(read_fold("coco-mini-60"), dataset)
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else begin(size)
    photographs: Photographs = {}
    for class_id, names in fold.images.items():
        class_name = fold.class_names[class_id]
        large = [name for name in names if (dataset.ground_truth(name, class_id) == 1).mean() > MIN_SHARE]
        if len(large) < MIN_IMAGES or class_name in found["cases"]:
            continue
        if not photographs:
            photographs = read(method, dataset, Resize(size), root)
        found["cases"][class_name] = [
            compare(method, dataset, photographs, class_id, large, seed, size) for seed in SEEDS
        ]
        write_text(json.dumps(found, indent=1) + "\n", RESULT)


def begin(size: int) -> dict[str, Any]:
    """Start a result."""
    provenance = record_provenance([]).model_dump() | {"command": "make mistakes-results"}
    return {"provenance": provenance, "image_size": size, "negatives": NEGATIVES, "cases": {}}


def read(method: Prototype, dataset: Dataset, transform: Resize, root: Path) -> Photographs:
    """Read the features of all photographs that prototypes need."""
    photographs: Photographs = {}
    for name in sorted(path.stem for path in (root / "images").iterdir()):
        with torch.inference_mode():
            pyramid = method.features(transform.image(read_image(dataset.image_path(name))))
        photographs[name] = FeaturePyramid(tuple((stage[-1],) for stage in pyramid.stages), None)
    return photographs


def compare(
    method: Prototype,
    dataset: Dataset,
    photographs: Photographs,
    class_id: int,
    names: list[str],
    seed: int,
    size: int,
) -> list[dict[str, float]]:
    """Score one labelled photograph with each number of negatives."""
    labelled, *others = shuffled(names, seed, class_id)
    without = [name for name in photographs if class_id not in dataset.classes_in(name)]
    absent = shuffled(without, seed, class_id)
    pool, test = absent[:POOL], absent[POOL : POOL + ABSENT]
    mask = Resize(size).support_mask(dataset.ground_truth(labelled, class_id))
    support = Support(photographs[labelled], mask)

    def find(name: str, negatives: list[str], answer_size: tuple[int, ...]) -> np.ndarray:
        told = [Support(photographs[one], torch.zeros_like(mask)) for one in negatives]
        with torch.inference_mode():
            answer = method.segment(photographs[name], [support], (answer_size[0], answer_size[1]), told)
        return answer.mask[0].numpy()

    worst = sorted(pool, key=lambda name: -find(name, [], (GRID, GRID)).mean())
    scores = []
    for number in NEGATIVES:
        chosen = worst[:number]
        ground_truths = {name: dataset.ground_truth(name, class_id) for name in others[:SHOWING]}
        counts = [
            count_pixels(find(name, chosen, ground_truth.shape), ground_truth)
            for name, ground_truth in ground_truths.items()
        ]
        shares = [find(name, chosen, (GRID, GRID)).mean() for name in test]
        total = np.array(counts).sum(axis=0)
        scores.append({"iou": float(total[0] / max(total[1], 1)), "false": float(np.mean(shares))})
    return scores


def table(found: dict[str, Any]) -> str:
    """Write the result as a table."""
    cases = found["cases"].values()
    scores = np.array([[[(one["iou"], one["false"]) for one in row] for row in case] for case in cases])
    lines = [
        "| negatives | IoU where it is shown | change (95 %) | found where it is not, of the picture | "
        "change (95 %) |",
        "|---|---|---|---|---|",
    ]
    for place, number in enumerate(found["negatives"]):
        cells = [str(number)]
        for kind in (0, 1):
            cells.append(f"{100 * scores[:, :, place, kind].mean():.1f} %")
            low, high = mean_interval((scores[:, :, place, kind] - scores[:, :, 0, kind]).mean(axis=1))
            cells.append(f"{100 * low:+.1f} to {100 * high:+.1f}" if number else "")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"{len(scores)} classes x {scores.shape[1]} labelled photographs, `prototype`."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
