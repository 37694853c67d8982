"""Do suggested supports beat random ones? And does confidence tell good answers from bad ones?

    python benchmarks/suggest.py --coco-mini DIR --voc DIR [--into docs/suggest.md]

Run it from the repository's root. Of each class half of the photographs are the pool, the others the test.
One photograph of the pool is labelled, at random; four more are chosen, by chance or by
`kshot.predict.suggest`, then all five are supports. The pool holds images of the class alone, or
coco-mini's others too: a chosen one that does not show the class is no support.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.benchmarks import open_dataset
from kshot.data.sampling import shuffled
from kshot.evaluation.metrics import count_pixels, mean_interval
from kshot.io.files import write_text
from kshot.io.images import read_image
from kshot.io.provenance import record_provenance
from kshot.methods.prototype import Prototype
from kshot.models.backbones import FeaturePyramid
from kshot.predict.suggest import Appearance, choose, summarise
from kshot.reproduction.table_writers import insert_between
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import Segmentation, Support

RESULT = Path("benchmarks/results/suggest.json")
SIZE = 257
SHOTS = 5
SEEDS = range(5)
MIN_SHARE = 0.01
"""Of a photograph that an object covers, below which it is left out."""
MIN_IMAGES, MAX_IMAGES = 14, 60
"""Photographs of a class: with fewer it is left out, of more the first are taken."""


class Photograph(NamedTuple):
    """What is read once: features, and where each class is."""

    pyramid: FeaturePyramid
    ground_truths: dict[int, np.ndarray]
    masks: dict[int, torch.Tensor]


class Case(NamedTuple):
    """One class and seed: the labelled photograph, the pool, the pool's photographs of it, and the test."""

    class_id: int
    seed: int
    labelled: str
    pool: list[str]
    showing: list[str]
    test: list[str]


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--coco-mini", type=Path)
    parser.add_argument("--voc", type=Path)
    parser.add_argument("--into", type=Path)
    given = parser.parse_args()
    if not RESULT.exists():
        measure(given.coco_mini, given.voc)
    if given.into is not None:
        text = insert_between(given.into.read_text(), "table-suggest", table(json.loads(RESULT.read_text())))
        write_text(text, given.into)


def measure(coco_mini: Path, voc: Path) -> None:
    """Write the result file."""
    provenance = record_provenance([]).model_dump() | {"command": "make suggest-results"}
    method = Segmenter.from_pretrained("prototype", image_size=SIZE).method
    assert isinstance(method, Prototype)
    found: dict[str, Any] = {"provenance": provenance, "image_size": SIZE, "shots": SHOTS}
    coco, pascal = open_dataset("coco-mini-60", coco_mini), open_dataset("pascal", voc)
    names = sorted(path.stem for path in (coco_mini / "images").iterdir())
    of_coco = {c: [n for n in names if c in coco.classes_in(n)] for c in range(len(coco.class_names))}
    fold = train_fold("pascal", 0, exclude_holdout=False)
    of_voc = {
        c: [n for n in shuffled(list(listed), 0, c) if pascal.image_path(n).exists()][:MAX_IMAGES]
        for c, listed in fold.images.items()
    }
    found["coco-mini, showing it"] = compare(method, *read(method, coco, of_coco, []), others=False)
    found["coco-mini, all"] = compare(method, *read(method, coco, of_coco, names), others=True)
    found["VOC, showing it"] = compare(method, *read(method, pascal, of_voc, []), others=False)
    write_text(json.dumps(found, indent=2) + "\n", RESULT)


def read(
    method: Prototype, dataset: Dataset, by_class: dict[int, list[str]], others: list[str]
) -> tuple[dict[str, Photograph], dict[int, list[str]]]:
    """Read the photographs of classes that have enough of them, and others."""
    transform, photographs, kept = Resize(SIZE), dict[str, Photograph](), dict[int, list[str]]()
    for class_id, names in by_class.items():
        large = [n for n in names if (dataset.ground_truth(n, class_id) == 1).mean() > MIN_SHARE][:MAX_IMAGES]
        if len(large) >= MIN_IMAGES:
            kept[class_id] = large
    for name in dict.fromkeys([n for names in kept.values() for n in names] + others):
        with torch.inference_mode():
            pyramid = method.features(transform.image(read_image(dataset.image_path(name))))
        pyramid = FeaturePyramid(tuple((stage[-1],) for stage in pyramid.stages), None)
        photographs[name] = Photograph(pyramid, {}, {})
        for class_id in dataset.classes_in(name):
            ground_truth = dataset.ground_truth(name, class_id)
            photographs[name].ground_truths[class_id] = ground_truth
            photographs[name].masks[class_id] = transform.support_mask(ground_truth)
    return photographs, kept


def cases(photographs: dict[str, Photograph], by_class: dict[int, list[str]], others: bool) -> Iterator[Case]:
    """Draw what is labelled, what is not, and what is tested on."""
    for class_id, names in by_class.items():
        for seed in SEEDS:
            drawn = shuffled(names, seed, class_id)
            pool, test = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
            absent = [name for name in photographs if class_id not in photographs[name].ground_truths]
            yield Case(class_id, seed, pool[0], pool[1:] + (absent if others else []), pool[1:], test)


def compare(
    method: Prototype, photographs: dict[str, Photograph], by_class: dict[int, list[str]], *, others: bool
) -> dict[str, Any]:
    """Score every way to choose, and rank the test's answers by confidence."""
    ious, hits, ranks = defaultdict[str, list[float]](list), defaultdict[str, list[int]](list), []
    for case in cases(photographs, by_class, others):
        class_id = case.class_id
        looks = look(method, photographs, case)
        by_chance = shuffled(case.pool, case.seed, class_id, 1)[: SHOTS - 1]
        known = summarise(photographs[case.labelled].pyramid, photographs[case.labelled].masks[class_id])
        suggested = [case.pool[place] for place in choose([known], looks, SHOTS - 1)]
        for way, chosen in {"one": [], "chance": by_chance, "suggested": suggested}.items():
            showing = [name for name in chosen if name in case.showing]
            answers = [
                answer(method, photographs, [case.labelled, *showing], name, class_id) for name in case.test
            ]
            ground_truths = [photographs[name].ground_truths[class_id] for name in case.test]
            pairs = zip(answers, ground_truths, strict=True)
            counts = np.array(
                [count_pixels(one.mask[0].numpy(), ground_truth) for one, ground_truth in pairs]
            )
            ious[way].append(iou(counts.sum(axis=0)))
            hits[way].append(len(showing))
            if way == "one":
                each = [iou(row) for row in counts]
                sure = [float(a.probability[a.mask].mean()) if a.mask.any() else 0.0 for a in answers]
                ranks.append(float(spearmanr(each, sure).statistic))
    gain = np.array(ious["suggested"]) - np.array(ious["chance"])
    return {
        "classes": len(by_class),
        "seeds": len(SEEDS),
        "miou": {way: float(np.mean(values)) for way, values in ious.items()},
        "supports_chosen": {way: float(np.mean(values)) for way, values in hits.items()},
        "gain": {
            "mean": float(gain.mean()),
            "interval": mean_interval(gain.reshape(len(by_class), -1).mean(axis=1)),
        },
        "rank_correlation_of_confidence_with_iou": float(np.nanmean(ranks)),
    }


def look(method: Prototype, photographs: dict[str, Photograph], case: Case) -> list[Appearance]:
    """See what the one labelled photograph finds in the pool."""
    looks = []
    for name in case.pool:
        found = answer(method, photographs, [case.labelled], name, case.class_id)
        looks.append(summarise(photographs[name].pyramid, found.probability[:, None]))
    return looks


def answer(
    method: Prototype, photographs: dict[str, Photograph], supports: list[str], name: str, class_id: int
) -> Segmentation:
    """Segment a photograph, in its own size if it shows the class."""
    shots = [Support(photographs[n].pyramid, photographs[n].masks[class_id]) for n in supports]
    ground_truth = photographs[name].ground_truths.get(class_id)
    with torch.inference_mode():
        return method.segment(
            photographs[name].pyramid, shots, (SIZE, SIZE) if ground_truth is None else ground_truth.shape
        )


def iou(counts: np.ndarray) -> float:
    """Give the IoU of `Counts`."""
    return float(counts[0] / max(counts[1], 1))


def table(found: dict[str, Any]) -> str:
    """Write the result as a table."""
    lines = [
        "| photographs to choose from | classes x seeds | 1 support | 5, by chance | 5, suggested | "
        "gain (95 %) | chosen ones that show it, of 4: chance / suggested | "
        "confidence against IoU (rank correlation) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        if not isinstance(one, dict) or "miou" not in one:
            continue
        scores = " | ".join(f"{100 * one['miou'][way]:.1f}" for way in ("one", "chance", "suggested"))
        low, high = (100 * x for x in one["gain"]["interval"])
        chosen = one["supports_chosen"]
        lines.append(
            f"| {name} | {one['classes']} x {one['seeds']} | {scores} | "
            f"{100 * one['gain']['mean']:+.1f} ({low:+.1f} to {high:+.1f}) | "
            f"{chosen['chance']:.1f} / {chosen['suggested']:.1f} | "
            f"{one['rank_correlation_of_confidence_with_iou']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
