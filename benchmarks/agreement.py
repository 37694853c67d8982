"""How alike are an engine's or a precision's masks and those of torch in fp32, on real photographs?

    python benchmarks/agreement.py --coco-mini DIR [--into FILE.md]

Run it from the repository's root. The shipped two-pass model segments the first episodes of a frozen
manifest, photographs and masks in their own sizes.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot.benchmark.metrics import count_pixels
from kshot.benchmark.provenance import record_provenance
from kshot.benchmark.table_writers import Cell, Table, insert_between, to_markdown
from kshot.data.benchmarks import open_dataset
from kshot.data.manifest import read_manifest
from kshot.data.sampling import Episode
from kshot.data.truth import Dataset
from kshot.pictures import write_text
from kshot.segmenter import Segmenter

RESULT = Path("benchmarks/results/agreement.json")
MANIFEST = Path("benchmarks/manifests/coco-mini-60_1shot_seed0.json")
NUM_EPISODES = 60
PLAIN = ("torch", "fp32")
WAYS = (PLAIN, ("openvino", "fp32"), ("torch", "bf16"), ("openvino", "bf16"))


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--coco-mini", type=Path, required=True)
    parser.add_argument("--into", type=Path, help="Put the table between its markers in this document")
    options = parser.parse_args()
    if not RESULT.exists():
        found = measure(open_dataset("coco-mini-60", options.coco_mini))
        write_text(json.dumps(found, indent=2) + "\n", RESULT)
    text = to_markdown(table(json.loads(RESULT.read_text())))
    if options.into is None:
        print(text)
    else:
        write_text(insert_between(options.into.read_text(), "table-agreement", text), options.into)


def measure(dataset: Dataset) -> dict[str, Any]:
    """Segment each episode in each way: each way's agreement with the plain one, and its IoU."""
    provenance = record_provenance([]).model_dump() | {
        "command": "python benchmarks/agreement.py --coco-mini PLACE"
    }
    torch.set_num_threads(1)
    segmenters = {
        way: Segmenter.from_pretrained("two-pass", device="cpu", engine=way[0], precision=way[1])
        for way in WAYS
    }
    episodes = read_manifest(MANIFEST).episodes[:NUM_EPISODES]
    each = [compare(segmenters, dataset, episode) for episode in episodes]
    return {
        "provenance": provenance,
        "manifest": MANIFEST.name,
        "episodes": len(each),
        "ways": {" ".join(way): [one[way] for one in each] for way in WAYS},
    }


def compare(
    segmenters: dict[tuple[str, str], Segmenter], dataset: Dataset, episode: Episode
) -> dict[tuple[str, str], dict[str, float]]:
    """Segment one episode in each way."""
    supports = [dataset.image_path(name) for name in episode.supports]
    masks = [dataset.truth(name, episode.class_id) for name in episode.supports]
    truth = dataset.truth(episode.query, episode.class_id)
    answers = {
        way: segmenter.fit(supports, masks).explain(dataset.image_path(episode.query))
        for way, segmenter in segmenters.items()
    }
    plain = answers[PLAIN]
    found = {}
    for way, answer in answers.items():
        counts = count_pixels(answer.mask, truth)
        found[way] = {
            "pixels": plain.mask.size,
            "different": int((answer.mask != plain.mask).sum()),
            "largest_difference": float(np.abs(answer.fused - plain.fused).max()),
            "iou": counts.intersection / max(counts.union, 1),
        }
    print(episode.query, json.dumps({" ".join(way): one for way, one in found.items()}), flush=True)
    return found


def table(found: dict[str, Any]) -> Table:
    """Lay out the results."""
    rows = []
    for way, each in found["ways"].items():
        equal = 1 - sum(one["different"] for one in each) / sum(one["pixels"] for one in each)
        worst = 1 - max(one["different"] / one["pixels"] for one in each)
        texts = [way.replace(" ", ", "), f"{equal:.3%}", f"{worst:.2%}"]
        texts += [f"{max(one['largest_difference'] for one in each):.0e}"]
        texts += [f"{100 * statistics.mean(one['iou'] for one in each):.2f}"]
        rows.append(tuple(Cell(text) for text in texts))
    heads = ("Engine, precision", "equal pixels", "in the worst image", "Δ probability", "mean IoU, %")
    return Table(
        "The shipped two-pass model's masks, against those of torch in fp32",
        tuple(("", head) for head in heads),
        tuple(rows),
        (
            f"{found['episodes']} one-shot episodes of `{found['manifest']}`, masks in the photographs' "
            f"sizes. Δ probability: the largest of all pixels. {found['provenance']['machine']}.",
        ),
        num_texts=1,
    )


if __name__ == "__main__":
    main()
