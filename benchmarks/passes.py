"""Compare the passes of two-pass by the size of the object.

    python benchmarks/passes.py [--voc DIR --coco-mini DIR] [--into docs/training.md]

Run from the repository's root. `two-pass-plus` segments 200 one-shot episodes each of new classes
(coco-mini-60, and fold 0 of PASCAL-5i in images of its train lists) and of classes that it was trained on.
Its second pass runs twice: with the soft mask of the first pass as it is, and sharpened. The score of an
episode is the IoU of one image, not a class's sum over images, so that large objects do not outweigh small
ones. Each pass has threshold 0.5. Existing measurements are kept.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import (
    RESULTS,
    coco_mini_manifest,
    insert_table,
    iou,
    make_parser,
    markdown_table,
    provenance,
    read_json,
    voc_manifest,
    write_json,
)

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.benchmarks import open_dataset
from kshot.data.manifest import draw_manifest, read_manifest
from kshot.data.protocols import preset
from kshot.data.sampling import Episode
from kshot.evaluation.evaluator import EpisodeReader
from kshot.evaluation.metrics import count_pixels, mean_interval
from kshot.methods.two_pass import TwoPass
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import Support

RESULT = RESULTS / "passes.json"
MODEL = "two-pass-plus"
EPISODES = 200
SIZES = (0.0, 0.03, 0.1, 0.25, 1.0)
"""Bounds of the bins of the object's share of the image."""
SETS = {
    "coco-mini-60": "new classes, coco-mini-60",
    "fold 0": "new classes, fold 0",
    "trained": "trained classes",
}


def main() -> None:
    """Measure what is missing, and write the table."""
    given = make_parser(__doc__, "voc", "coco-mini", into=True).parse_args()
    if given.voc is not None and given.coco_mini is not None:
        measure(given.voc, given.coco_mini)
    insert_table(given.into, "table-passes", table(read_json(RESULT)))


def measure(voc: Path, coco_mini: Path) -> None:
    """Write the result file, after each set of episodes."""
    result = read_json(RESULT) or {"provenance": provenance("make passes-results"), "episodes": {}}
    pascal = open_dataset("pascal", voc)
    sets = {
        "coco-mini-60": (
            open_dataset("coco-mini-60", coco_mini),
            read_manifest(coco_mini_manifest(1, 0)).episodes[:EPISODES],
        ),
        "fold 0": (pascal, read_manifest(voc_manifest(0, 1, voc)).episodes[:EPISODES]),
        "trained": (pascal, trained_episodes(pascal)),
    }
    segmenter = Segmenter.from_pretrained(MODEL, device="cpu")
    for name, (dataset, episodes) in sets.items():
        if name not in result["episodes"]:
            result["episodes"][name] = score(segmenter, dataset, episodes)
            write_json(result, RESULT, indent=None)


def trained_episodes(dataset: Dataset) -> tuple[Episode, ...]:
    """Draw episodes of fold 0's base classes."""
    protocol = preset("balanced", "pascal").model_copy(update={"num_episodes": EPISODES})
    return draw_manifest(train_fold("pascal", 0, exclude_holdout=False), protocol, 1, 0, dataset).episodes


def score(segmenter: Segmenter, dataset: Dataset, episodes: tuple[Episode, ...]) -> list[dict[str, Any]]:
    """Return class, the object's share of the image, precision and the IoU of each pass for every episode.

    Precision is the share of the first pass's probability that lies on the object.
    """
    method, transform = segmenter.method, Resize(segmenter.config.image_size)
    assert isinstance(method, TwoPass)
    reader = EpisodeReader(dataset, episodes, transform)
    features: dict[str, Any] = {}
    scores = []
    with torch.inference_mode():
        for index in reader.order:
            class_id, query, (support,) = episodes[index]
            for name in episodes[index].image_names:
                if name not in features:
                    features[name] = method.features(reader.image(name))
            shown = Support(features[support], reader.support_mask(support, class_id))
            ground_truth = dataset.ground_truth(query, class_id)
            results = {}
            for sharpen_mask in (False, True):
                method.sharpen_mask = sharpen_mask
                results[sharpen_mask] = method.segment(features[query], [shown], ground_truth.shape)
            probability = first_image(results[True].first_pass)
            maps = {
                "first": probability,
                "second, soft": first_image(results[False].second_pass),
                "second": first_image(results[True].second_pass),
                "result": first_image(results[True].probability),
            }
            scores.append(
                {
                    "class": class_id,
                    "share": float((ground_truth == 1).mean()),
                    "precision": float(probability[ground_truth == 1].sum() / probability.sum()),
                    "iou": {name: iou(count_pixels(one > 0.5, ground_truth)) for name, one in maps.items()},
                }
            )
            if len(features) > 200:  # about 10 MB each
                features.clear()
    return scores


def first_image(probability: torch.Tensor | None) -> np.ndarray:
    """Return the only image of a batch."""
    assert probability is not None
    return probability[0].numpy()


def table(found: dict[str, Any]) -> str:
    """Return the result as a table."""
    header = ("episodes", "object covers", "number", "soft mask on it", "first pass", "second, soft mask")
    header += ("second, sharpened", "result", "sharpened - soft (95 %)")
    rows = []
    for name, episodes in found["episodes"].items():
        shares = np.array([one["share"] for one in episodes])
        ious = 100 * np.array([list(one["iou"].values()) for one in episodes])
        precisions = 100 * np.array([one["precision"] for one in episodes])
        for low, high in pairwise(SIZES):
            of_size = (low <= shares) & (shares < high)
            mine = ious[of_size]
            first, last = mean_interval(mine[:, 2] - mine[:, 1])
            covers, precision = (
                f"{100 * low:.0f} to {100 * high:.0f} %",
                f"{precisions[of_size].mean():.0f} %",
            )
            means = [f"{mean:.1f}" for mean in mine.mean(axis=0)]
            change = f"{first:+.1f} to {last:+.1f}"
            rows.append((SETS[name], covers, len(mine), precision, *means, change))
    note = f"Mean IoU of single images in percent, `{MODEL}`, one shot."
    return f"{markdown_table(header, rows, words=2)}\n\n{note}"


if __name__ == "__main__":
    main()
