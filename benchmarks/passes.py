"""Which pass is better at what? The passes of two-pass side by side, by how large the object is.

    python benchmarks/passes.py [--voc DIR --coco-mini DIR] [--into docs/training.md]

Run it from the repository's root. `two-pass-plus` segments 200 one-shot episodes each of new classes
(coco-mini-60, and fold 0 of PASCAL-5i in photographs of its train lists) and of classes that it was trained
on; its second pass does so twice, under the first pass's probabilities as they are and sharpened. An
episode's score is the IoU of one picture, and not a class's sum over pictures: large objects do not outvote
small ones; each pass decides at 0.5. What is measured already is not measured again.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from first_numbers import coco_mini_manifest, voc_manifest

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.benchmarks import open_dataset
from kshot.data.manifest import draw_manifest, read_manifest
from kshot.data.protocols import preset
from kshot.data.sampling import Episode
from kshot.evaluation.evaluator import EpisodeReader, names_of
from kshot.evaluation.metrics import count_pixels, mean_interval
from kshot.io.files import write_text
from kshot.io.provenance import record_provenance
from kshot.methods.two_pass import TwoPass
from kshot.reproduction.table_writers import insert_between
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import Support

RESULT = Path("benchmarks/results/passes.json")
MODEL = "two-pass-plus"
EPISODES = 200
SIZES = (0.0, 0.03, 0.1, 0.25, 1.0)
"""Share of the picture that the object covers: from each to the next."""
SETS = {
    "coco-mini-60": "new classes, coco-mini-60",
    "fold 0": "new classes, fold 0",
    "trained": "trained classes",
}


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voc", type=Path)
    parser.add_argument("--coco-mini", type=Path)
    parser.add_argument("--into", type=Path)
    given = parser.parse_args()
    if given.voc is not None and given.coco_mini is not None:
        measure(given.voc, given.coco_mini)
    if given.into is not None:
        text = insert_between(given.into.read_text(), "table-passes", table(json.loads(RESULT.read_text())))
        write_text(text, given.into)


def measure(voc: Path, coco_mini: Path) -> None:
    """Write the result file, after each set of episodes."""
    provenance = record_provenance([]).model_dump() | {"command": "make passes-results"}
    result: dict[str, Any] = {"provenance": provenance, "episodes": {}}
    if RESULT.exists():
        result = json.loads(RESULT.read_text())
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
            write_text(json.dumps(result) + "\n", RESULT)


def trained_episodes(dataset: Dataset) -> tuple[Episode, ...]:
    """Draw episodes of fold 0's base classes."""
    protocol = preset("balanced", "pascal").model_copy(update={"num_episodes": EPISODES})
    return draw_manifest(train_fold("pascal", 0, exclude_holdout=False), protocol, 1, 0, dataset).episodes


def score(segmenter: Segmenter, dataset: Dataset, episodes: tuple[Episode, ...]) -> list[dict[str, Any]]:
    """Give each episode's class, the object's share of the picture, each pass's IoU, and the soft mask's
    precision: how much of the first pass's probability lies on the object.
    """
    method, transform = segmenter.method, Resize(segmenter.config.image_size)
    assert isinstance(method, TwoPass)
    reader = EpisodeReader(dataset, episodes, transform)
    features: dict[str, Any] = {}
    scores = []
    with torch.inference_mode():
        for index in reader.order:
            class_id, query, (support,) = episodes[index]
            for name in names_of(episodes[index]):
                if name not in features:
                    features[name] = method.features(reader.image(name))
            shown = Support(features[support], reader.support_mask(support, class_id))
            ground_truth = dataset.ground_truth(query, class_id)
            answers = {}
            for sharpen_mask in (False, True):
                method.sharpen_mask = sharpen_mask
                answers[sharpen_mask] = method.segment(features[query], [shown], ground_truth.shape)
            probability = found(answers[True].first_pass)
            maps = {
                "first": probability,
                "second, soft": found(answers[False].second_pass),
                "second": found(answers[True].second_pass),
                "result": found(answers[True].probability),
            }
            scores.append(
                {
                    "class": class_id,
                    "share": float((ground_truth == 1).mean()),
                    "precision": float(probability[ground_truth == 1].sum() / probability.sum()),
                    "iou": {name: iou(one > 0.5, ground_truth) for name, one in maps.items()},
                }
            )
            if len(features) > 200:  # some 10 MB each
                features.clear()
    return scores


def found(probability: torch.Tensor | None) -> np.ndarray:
    """Give the only picture of a batch."""
    assert probability is not None
    return probability[0].numpy()


def iou(mask: np.ndarray, ground_truth: np.ndarray) -> float:
    """Give a mask's IoU on one picture."""
    counts = count_pixels(mask, ground_truth)
    return counts.intersection / max(counts.union, 1)


def table(found: dict[str, Any]) -> str:
    """Write the result as a table."""
    lines = [
        "| episodes | object covers | number | soft mask on it | first pass | second, soft mask "
        "| second, sharpened | result | sharpened - soft (95 %) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, episodes in found["episodes"].items():
        shares = np.array([one["share"] for one in episodes])
        ious = 100 * np.array([list(one["iou"].values()) for one in episodes])
        precisions = 100 * np.array([one["precision"] for one in episodes])
        for low, high in pairwise(SIZES):
            of_size = (low <= shares) & (shares < high)
            mine = ious[of_size]
            first, last = mean_interval(mine[:, 2] - mine[:, 1])
            means = " | ".join(f"{mean:.1f}" for mean in mine.mean(axis=0))
            lines.append(
                f"| {SETS[name]} | {100 * low:.0f} to {100 * high:.0f} % | {len(mine)} | "
                f"{precisions[of_size].mean():.0f} % | {means} | "
                f"{first:+.1f} to {last:+.1f} |"
            )
    return "\n".join([*lines, "", f"Mean IoU of single pictures in percent, `{MODEL}`, one shot."])


if __name__ == "__main__":
    main()
