"""Measure how much negative images reduce false positives.

    python benchmarks/negatives.py --coco-mini DIR [--into docs/mistakes.md]

Run from the repository's root. For each class of coco-mini-60 one image is the support. Of twenty images
without the class, those with the most false positives become negatives, as a user would choose them. The
class is then segmented in up to ten other images that show it and forty that do not. Existing measurements
are kept, so a stopped run can be resumed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import (
    RESULTS,
    insert_table,
    iou,
    make_parser,
    markdown_table,
    provenance,
    read_json,
    write_json,
)

from kshot.data.base import Dataset
from kshot.data.base_classes import present
from kshot.data.benchmarks import open_dataset, read_fold
from kshot.data.sampling import shuffled
from kshot.evaluation.metrics import count_pixels, mean_interval
from kshot.io.images import read_image
from kshot.methods.prototype import Prototype
from kshot.models.backbones import FeaturePyramid
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import Support

RESULT = RESULTS / "negatives.json"
SEEDS = range(3)
NEGATIVES = (0, 1, 2, 5)
POOL, ABSENT, SHOWING = 20, 40, 10
"""Numbers of candidate negatives, and of test images without and with the object."""
MIN_SHARE, MIN_IMAGES = 0.01, 4
"""Smallest share of the image that an object covers, and smallest number of images of a class."""
GRID = 104
"""Side in pixels of the masks of images without the object."""

Pyramids = dict[str, FeaturePyramid]


def main() -> None:
    """Measure what is missing, and write the table."""
    given = make_parser(__doc__, "coco-mini", into=True).parse_args()
    if given.coco_mini is not None:
        measure(given.coco_mini)
    insert_table(given.into, "table-negatives", table(read_json(RESULT)))


def measure(root: Path) -> None:
    """Write the result file, after each class."""
    segmenter = Segmenter.from_pretrained("prototype")
    method, size = segmenter.method, segmenter.config.image_size
    assert isinstance(method, Prototype)
    dataset = open_dataset("coco-mini-60", root)
    fold = present(read_fold("coco-mini-60"), dataset)
    start = {"image_size": size, "negatives": NEGATIVES, "cases": {}}
    found = read_json(RESULT) or {"provenance": provenance("make mistakes-results"), **start}
    pyramids: Pyramids = {}
    for class_id, names in fold.images.items():
        class_name = fold.class_names[class_id]
        large = [name for name in names if (dataset.ground_truth(name, class_id) == 1).mean() > MIN_SHARE]
        if len(large) < MIN_IMAGES or class_name in found["cases"]:
            continue
        if not pyramids:
            pyramids = read(method, dataset, Resize(size), root)
        found["cases"][class_name] = [
            compare(method, dataset, pyramids, class_id, large, seed, size) for seed in SEEDS
        ]
        write_json(found, RESULT)


def read(method: Prototype, dataset: Dataset, transform: Resize, root: Path) -> Pyramids:
    """Extract the features of all images that prototypes need."""
    pyramids: Pyramids = {}
    for name in sorted(path.stem for path in (root / "images").iterdir()):
        with torch.inference_mode():
            pyramid = method.features(transform.image(read_image(dataset.image_path(name))))
        pyramids[name] = FeaturePyramid(tuple((stage[-1],) for stage in pyramid.stages), None)
    return pyramids


def compare(
    method: Prototype,
    dataset: Dataset,
    pyramids: Pyramids,
    class_id: int,
    names: list[str],
    seed: int,
    size: int,
) -> list[dict[str, float]]:
    """Evaluate one support image with each number of negatives."""
    labelled, *others = shuffled(names, seed, class_id)
    without = [name for name in pyramids if class_id not in dataset.classes_in(name)]
    absent = shuffled(without, seed, class_id)
    pool, test = absent[:POOL], absent[POOL : POOL + ABSENT]
    mask = Resize(size).support_mask(dataset.ground_truth(labelled, class_id))
    support = Support(pyramids[labelled], mask)

    def find(name: str, negatives: list[str], size: tuple[int, ...]) -> np.ndarray:
        negative_supports = [Support(pyramids[one], torch.zeros_like(mask)) for one in negatives]
        with torch.inference_mode():
            result = method.segment(pyramids[name], [support], (size[0], size[1]), negative_supports)
        return result.mask[0].numpy()

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
        scores.append({"iou": iou(total), "false": float(np.mean(shares))})
    return scores


def table(found: dict[str, Any]) -> str:
    """Return the result as a table."""
    cases = found["cases"].values()
    scores = np.array([[[(one["iou"], one["false"]) for one in row] for row in case] for case in cases])
    header = ("negatives", "IoU with the object", "change (95 %)")
    header += ("false positives without the object, share of the image", "change (95 %)")
    rows = []
    for place, number in enumerate(found["negatives"]):
        cells = [str(number)]
        for kind in (0, 1):
            cells.append(f"{100 * scores[:, :, place, kind].mean():.1f} %")
            low, high = mean_interval((scores[:, :, place, kind] - scores[:, :, 0, kind]).mean(axis=1))
            cells.append(f"{100 * low:+.1f} to {100 * high:+.1f}" if number else "")
        rows.append(cells)
    note = f"{len(scores)} classes x {scores.shape[1]} support images, `prototype`."
    return f"{markdown_table(header, rows)}\n\n{note}"


if __name__ == "__main__":
    main()
