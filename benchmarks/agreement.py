"""Compare the masks of each engine and precision with those of torch in fp32, on real images.

    python benchmarks/agreement.py --coco-mini DIR [--into FILE.md]

Run it from the repository's root. The two-pass models that ship segment the first episodes of a frozen
manifest, with images and masks in their original sizes.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot.data.base import Dataset
from kshot.data.benchmarks import open_dataset
from kshot.data.manifest import read_manifest
from kshot.data.sampling import Episode
from kshot.evaluation.metrics import count_pixels
from kshot.io.files import write_text
from kshot.io.provenance import record_provenance
from kshot.reproduction.table_writers import Cell, Table, insert_between, to_markdown
from kshot.segmenter import Segmenter

RESULT = Path("benchmarks/results/agreement.json")
MANIFEST = Path("benchmarks/manifests/coco-mini-60_1shot_seed0.json")
NUM_EPISODES = 60
MODELS = ("two-pass", "two-pass-plus")
PLAIN = ("torch", "fp32")
WAYS = (PLAIN, ("openvino", "fp32"), ("torch", "bf16"), ("openvino", "bf16"))


def main() -> None:
    """Measure if there is no result file, and write the table."""
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
    """Return, for each model, engine and precision, the agreement and the IoU of every episode."""
    provenance = record_provenance([]).model_dump() | {
        "command": "python benchmarks/agreement.py --coco-mini PLACE"
    }
    torch.set_num_threads(1)
    episodes = read_manifest(MANIFEST).episodes[:NUM_EPISODES]
    found: dict[str, Any] = {"provenance": provenance, "manifest": MANIFEST.name, "episodes": len(episodes)}
    found["models"] = {}
    for model in MODELS:
        segmenters = {
            way: Segmenter.from_pretrained(model, device="cpu", engine=way[0], precision=way[1])
            for way in WAYS
        }
        each = [compare(segmenters, dataset, episode) for episode in episodes]
        found["models"][model] = {" ".join(way): [one[way] for one in each] for way in WAYS}
    return found


def compare(
    segmenters: dict[tuple[str, str], Segmenter], dataset: Dataset, episode: Episode
) -> dict[tuple[str, str], dict[str, float]]:
    """Return the agreement and the IoU of one episode for each engine and precision."""
    supports = [dataset.image_path(name) for name in episode.supports]
    masks = [dataset.ground_truth(name, episode.class_id) for name in episode.supports]
    ground_truth = dataset.ground_truth(episode.query, episode.class_id)
    given = {
        way: segmenter.fit(supports, masks).predict(dataset.image_path(episode.query))
        for way, segmenter in segmenters.items()
    }
    plain = given[PLAIN]
    found = {}
    for way, segmented in given.items():
        counts = count_pixels(segmented.mask, ground_truth)
        found[way] = {
            "pixels": plain.mask.size,
            "different": int((segmented.mask != plain.mask).sum()),
            "largest_difference": float(np.abs(segmented.probability - plain.probability).max()),
            "iou": counts.intersection / max(counts.union, 1),
        }
    print(episode.query, json.dumps({" ".join(way): one for way, one in found.items()}), flush=True)
    return found


def results(found: dict[str, Any]) -> Iterator[tuple[str, str, list[dict[str, float]]]]:
    """Yield the model, the engine and precision, and one entry per episode."""
    for model, ways in found["models"].items():
        for way, each in ways.items():
            yield model, way, each


def table(found: dict[str, Any]) -> Table:
    """Return the table of all results."""
    rows = []
    for model, way, each in results(found):
        equal = 1 - sum(one["different"] for one in each) / sum(one["pixels"] for one in each)
        worst = 1 - max(one["different"] / one["pixels"] for one in each)
        texts = [f"`{model}`", way.replace(" ", ", "), f"{equal:.3%}", f"{worst:.2%}"]
        texts += [f"{max(one['largest_difference'] for one in each):.0e}"]
        texts += [f"{100 * statistics.mean(one['iou'] for one in each):.2f}"]
        rows.append(tuple(Cell(text) for text in texts))
    heads = (
        "Model",
        "Engine, precision",
        "equal pixels",
        "in the worst image",
        "Δ probability",
        "mean IoU, %",
    )
    return Table(
        "Masks of the two-pass models that ship, against those of torch in fp32",
        tuple(("", head) for head in heads),
        tuple(rows),
        (
            f"{found['episodes']} one-shot episodes of `{found['manifest']}`, masks in the photographs' "
            f"sizes. Δ probability: the largest of all pixels. {found['provenance']['machine']}.",
        ),
        num_texts=2,
    )


if __name__ == "__main__":
    main()
