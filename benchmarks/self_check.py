"""Measure how well the IoU on the support image itself predicts the IoU on the query.

    python benchmarks/self_check.py --coco-mini DIR [--into docs/mistakes.md]

Run from the repository's root. Uses the first support images of coco-mini-60's 1-shot episodes; each is
segmented with itself as support. The IoU on the queries comes from existing result files. Existing
measurements are kept, so a stopped run can be resumed.
"""

from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    MANIFESTS,
    RESULTS,
    insert_table,
    iou,
    make_parser,
    markdown_table,
    provenance,
    read_json,
    write_json,
)
from scipy.stats import spearmanr

from kshot.data.benchmarks import open_dataset
from kshot.data.manifest import read_manifest
from kshot.evaluation.results import read_result
from kshot.io.images import read_image
from kshot.predict.support_check import LOW_IOU, support_iou
from kshot.segmenter import Segmenter

RESULT = RESULTS / "self_check.json"
EPISODES = read_manifest(MANIFESTS / "coco-mini-60_1shot_seed0.json").episodes
QUERY_RESULTS = {
    "prototype": "prototype_efficientnet_lite0_coco-mini-60_1shot.json",
    "two-pass": "shipped_two-pass_coco-mini-60_1shot.json",
}
SUPPORTS = 80
"""Number of support images per model."""
GOOD = 0.5
"""IoU above which a prediction counts as good in the table."""


def main() -> None:
    """Measure what is missing, and write the table."""
    given = make_parser(__doc__, "coco-mini", into=True).parse_args()
    if given.coco_mini is not None:
        measure(given.coco_mini)
    insert_table(given.into, "table-self-check", table(read_json(RESULT)))


def measure(root: Path) -> None:
    """Write the result file after each support image."""
    dataset = open_dataset("coco-mini-60", root)
    start = {"provenance": provenance("make mistakes-results"), "own_iou": {n: {} for n in QUERY_RESULTS}}
    found = read_json(RESULT) or start
    for model, done in found["own_iou"].items():
        segmenter = Segmenter.from_pretrained(model)
        for key, (class_id, name) in list(supports().items())[:SUPPORTS]:
            if key not in done:
                image, mask = (
                    read_image(dataset.image_path(name)),
                    dataset.ground_truth(name, class_id) == 1,
                )
                done[key] = round(support_iou(segmenter.fit(image, mask), image, mask), 4)
                write_json(found, RESULT)


def supports() -> dict[str, tuple[int, str]]:
    """Return the different support images of the episodes: class and image name."""
    return {f"{one.class_id} {one.supports[0]}": (one.class_id, one.supports[0]) for one in EPISODES}


def table(found: dict[str, Any]) -> str:
    """Return the result as a table."""
    header = (
        "model",
        "supports",
        "queries",
        "rank correlation",
        f"support IoU below {LOW_IOU}: share of supports",
    )
    header += (f"their queries: mean IoU, share above {GOOD}", "the other queries")
    rows = []
    for model, done in found["own_iou"].items():
        if len(done) < SUPPORTS:
            continue  # a stopped run
        counts = read_result(RESULTS / QUERY_RESULTS[model]).runs[0].episodes.counts
        keys = [f"{one.class_id} {one.supports[0]}" for one in EPISODES]
        pairs = [(done[key], iou(row)) for key, row in zip(keys, counts, strict=True) if key in done]
        own, query = np.array(pairs).T
        rank = float(spearmanr(own, query).statistic)
        share = np.mean([value < LOW_IOU for value in done.values()])
        low, high = (
            f"{100 * part.mean():.0f}, {100 * (part > GOOD).mean():.0f} %"
            for part in (query[own < LOW_IOU], query[own >= LOW_IOU])
        )
        rows.append((model, len(done), len(own), f"{rank:.2f}", f"{100 * share:.0f} %", low, high))
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
