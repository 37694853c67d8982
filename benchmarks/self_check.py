"""Does it tell good answers from bad ones whether a model finds a support in its own photograph?

    python benchmarks/self_check.py --coco-mini DIR [--into docs/mistakes.md]

Run it from the repository's root. The supports are the first of coco-mini-60's 1-shot episodes; each is
segmented by itself. The answers to the queries are those of the result files that are there. What is measured
already is not measured again: a run that was stopped goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from kshot.data.benchmarks import open_dataset
from kshot.data.manifest import read_manifest
from kshot.evaluation.results import read_result
from kshot.io.files import write_text
from kshot.io.images import read_image
from kshot.io.provenance import record_provenance
from kshot.predict.support_check import LOW, own_iou
from kshot.reproduction.table_writers import insert_between
from kshot.segmenter import Segmenter

HERE = Path(__file__).parent
RESULT = HERE / "results" / "self_check.json"
EPISODES = read_manifest(HERE / "manifests" / "coco-mini-60_1shot_seed0.json").episodes
ANSWERS = {
    "prototype": "prototype_efficientnet_lite0_coco-mini-60_1shot.json",
    "two-pass": "shipped_two-pass_coco-mini-60_1shot.json",
}
SUPPORTS = 80
"""Different supports that are looked for, of each model."""
GOOD = 0.5
"""IoU from which on an answer is called good in the table."""


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
            given.into.read_text(), "table-self-check", table(json.loads(RESULT.read_text()))
        )
        write_text(text, given.into)


def measure(root: Path) -> None:
    """Write the result file, after each support."""
    dataset = open_dataset("coco-mini-60", root)
    provenance = record_provenance([]).model_dump() | {"command": "make mistakes-results"}
    found: dict[str, Any] = {"provenance": provenance, "own_iou": {name: {} for name in ANSWERS}}
    found = json.loads(RESULT.read_text()) if RESULT.exists() else found
    for model, done in found["own_iou"].items():
        segmenter = Segmenter.from_pretrained(model)
        for key, (class_id, name) in list(supports().items())[:SUPPORTS]:
            if key not in done:
                picture, mask = (
                    read_image(dataset.image_path(name)),
                    dataset.ground_truth(name, class_id) == 1,
                )
                done[key] = round(own_iou(segmenter.fit(picture, mask), picture, mask), 4)
                write_text(json.dumps(found, indent=1) + "\n", RESULT)


def supports() -> dict[str, tuple[int, str]]:
    """Give the episodes' supports, each once: class and photograph."""
    return {f"{one.class_id} {one.supports[0]}": (one.class_id, one.supports[0]) for one in EPISODES}


def table(found: dict[str, Any]) -> str:
    """Write the result as a table."""
    lines = [
        f"| model | supports | queries | rank correlation | found at less than {LOW}: share of supports | "
        f"their queries' IoU, and answers above {GOOD} | the others' |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, done in found["own_iou"].items():
        if len(done) < SUPPORTS:
            continue  # a run that was stopped
        counts = read_result(HERE / "results" / ANSWERS[model]).runs[0].episodes.counts
        keys = [f"{one.class_id} {one.supports[0]}" for one in EPISODES]
        pairs = [
            (done[key], row[0] / max(row[1], 1)) for key, row in zip(keys, counts, strict=True) if key in done
        ]
        own, query = np.array(pairs).T
        rank = float(spearmanr(own, query).statistic)
        share = np.mean([value < LOW for value in done.values()])
        low, high = (
            f"{100 * part.mean():.0f}, {100 * (part > GOOD).mean():.0f} %"
            for part in (query[own < LOW], query[own >= LOW])
        )
        cells = (model, len(done), len(own), f"{rank:.2f}", f"{100 * share:.0f} %", low, high)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
