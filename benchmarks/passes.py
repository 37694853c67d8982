"""Which pass is better at what? The passes of two-pass side by side, by how large the object is.

    python benchmarks/passes.py [--voc DIR --coco-mini DIR] [--into docs/training.md]

Run it from the repository's root. The model that ships segments 200 one-shot episodes each of new classes
(coco-mini-60, and fold 0 of PASCAL-5i in photographs of its train lists) and of classes that it was trained
on. An episode's score is the IoU of one picture, and not a class's sum over pictures: large objects do not
outvote small ones; each pass decides at 0.5. What is measured already is not measured again.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from first_numbers import coco_mini_manifest, voc_manifest

from kshot.benchmark.evaluate import EpisodeReader, names_of
from kshot.benchmark.framing import Frame
from kshot.benchmark.metrics import count_pixels, mean_interval
from kshot.benchmark.provenance import record_provenance
from kshot.benchmark.score import draw_manifest
from kshot.benchmark.table_writers import insert_between
from kshot.data.base_classes import train_fold
from kshot.data.benchmarks import open_dataset
from kshot.data.manifest import read_manifest
from kshot.data.protocols import preset
from kshot.data.sampling import Episode
from kshot.data.truth import Dataset
from kshot.episode import Support
from kshot.methods.two_pass import TwoPass
from kshot.pictures import write_text
from kshot.segmenter import Segmenter

RESULT = Path("benchmarks/results/passes.json")
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
    found: dict[str, Any] = {"provenance": provenance, "episodes": {}}
    if RESULT.exists():
        found = json.loads(RESULT.read_text())
    pascal = open_dataset("pascal", voc)
    sets = {
        "coco-mini-60": (
            open_dataset("coco-mini-60", coco_mini),
            read_manifest(coco_mini_manifest(1, 0)).episodes[:EPISODES],
        ),
        "fold 0": (pascal, read_manifest(voc_manifest(0, 1, voc)).episodes[:EPISODES]),
        "trained": (pascal, trained_episodes(pascal)),
    }
    segmenter = Segmenter.from_pretrained("two-pass", device="cpu")
    for name, (dataset, episodes) in sets.items():
        if name not in found["episodes"]:
            found["episodes"][name] = score(segmenter, dataset, episodes)
            write_text(json.dumps(found) + "\n", RESULT)


def trained_episodes(dataset: Dataset) -> tuple[Episode, ...]:
    """Draw episodes of fold 0's base classes."""
    protocol = preset("balanced", "pascal").model_copy(update={"num_episodes": EPISODES})
    return draw_manifest(train_fold("pascal", 0, hold_out=False), protocol, 1, 0, dataset).episodes


def score(segmenter: Segmenter, dataset: Dataset, episodes: tuple[Episode, ...]) -> list[dict[str, Any]]:
    """Give each episode's class, the object's share of the picture, and each pass's IoU."""
    method, frame = segmenter.method, Frame(segmenter.config.image_size, "squash")
    assert isinstance(method, TwoPass)
    reader = EpisodeReader(dataset, episodes, frame)
    features: dict[str, Any] = {}
    scores = []
    with torch.inference_mode():
        for index in reader.order:
            class_id, query, (support,) = episodes[index]
            for name in names_of(episodes[index]):
                if name not in features:
                    features[name] = method.features(reader.image(name))
            shown = Support(features[support], reader.support_mask(support, class_id))
            truth = dataset.truth(query, class_id)
            answer = method.segment(features[query], [shown], truth.shape)
            maps = (answer.first_pass, answer.second_pass, answer.probability)
            ious = [iou(one[0].numpy() > 0.5, truth) for one in maps]
            scores.append({"class": class_id, "share": float((truth == 1).mean()), "iou": ious})
            if len(features) > 200:  # some 10 MB each
                features.clear()
    return scores


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Give a mask's IoU on one picture."""
    counts = count_pixels(mask, truth)
    return counts.intersection / max(counts.union, 1)


def table(found: dict[str, Any]) -> str:
    """Write the result as a table."""
    lines = [
        "| episodes | object covers | number | first pass | second pass | result | second - first (95 %) |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, episodes in found["episodes"].items():
        shares = np.array([one["share"] for one in episodes])
        ious = 100 * np.array([one["iou"] for one in episodes])
        for low, high in pairwise(SIZES):
            mine = ious[(low <= shares) & (shares < high)]
            first, last = mean_interval(mine[:, 1] - mine[:, 0])
            means = " | ".join(f"{mean:.1f}" for mean in mine.mean(axis=0))
            lines.append(
                f"| {SETS[name]} | {100 * low:.0f} to {100 * high:.0f} % | {len(mine)} | {means} | "
                f"{first:+.1f} to {last:+.1f} |"
            )
    return "\n".join([*lines, "", "Mean IoU of single pictures in percent, `two-pass`, one shot."])


if __name__ == "__main__":
    main()
