"""Compare suggested support images with random ones, and confidence with IoU.

    python benchmarks/suggest.py --coco-mini DIR --voc DIR [--into docs/suggest.md]

Run from the repository's root. Half of the images of each class are the pool, the others are the test images.
One random image of the pool is labelled; four more are chosen, at random or by `kshot.predict.suggest`, then
all five are support images. The pool contains images of the class only, or coco-mini's other images too: a
chosen image without the class is not used.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
from scipy.stats import spearmanr

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.benchmarks import open_dataset
from kshot.data.sampling import shuffled
from kshot.evaluation.metrics import count_pixels, mean_interval
from kshot.io.images import read_image
from kshot.methods.prototype import Prototype
from kshot.models.backbones import FeaturePyramid
from kshot.predict.suggest import ImagePrototypes, choose_images, masked_average_pooling
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import Segmentation, Support

RESULT = RESULTS / "suggest.json"
SIZE = 257
SHOTS = 5
SEEDS = range(5)
MIN_SHARE = 0.01
"""Smallest share of the image that an object covers; images with less are excluded."""
MIN_IMAGES, MAX_IMAGES = 14, 60
"""Numbers of images of a class: classes with fewer are excluded, of more the first are used."""


class EncodedImage(NamedTuple):
    """Features of an image, and by class its ground truth and its mask at the network's size."""

    pyramid: FeaturePyramid
    ground_truths: dict[int, np.ndarray]
    masks: dict[int, torch.Tensor]


class Case(NamedTuple):
    """One class and seed: the labelled image, the pool, the pool's images of the class, the test images."""

    class_id: int
    seed: int
    labelled: str
    pool: list[str]
    showing: list[str]
    test: list[str]


def main() -> None:
    """Measure what is missing, and write the table."""
    given = make_parser(__doc__, "coco-mini", "voc", into=True).parse_args()
    if not RESULT.exists():
        measure(given.coco_mini, given.voc)
    insert_table(given.into, "table-suggest", table(read_json(RESULT)))


def measure(coco_mini: Path, voc: Path) -> None:
    """Write the result file."""
    found = {"provenance": provenance("make suggest-results"), "image_size": SIZE, "shots": SHOTS}
    method = Segmenter.from_pretrained("prototype", image_size=SIZE).method
    assert isinstance(method, Prototype)
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
    write_json(found, RESULT, indent=2)


def read(
    method: Prototype, dataset: Dataset, by_class: dict[int, list[str]], others: list[str]
) -> tuple[dict[str, EncodedImage], dict[int, list[str]]]:
    """Encode the images of classes that have enough of them, and `others`."""
    transform, images, kept = Resize(SIZE), dict[str, EncodedImage](), dict[int, list[str]]()
    for class_id, names in by_class.items():
        large = [n for n in names if (dataset.ground_truth(n, class_id) == 1).mean() > MIN_SHARE][:MAX_IMAGES]
        if len(large) >= MIN_IMAGES:
            kept[class_id] = large
    for name in dict.fromkeys([n for names in kept.values() for n in names] + others):
        with torch.inference_mode():
            pyramid = method.features(transform.image(read_image(dataset.image_path(name))))
        pyramid = FeaturePyramid(tuple((stage[-1],) for stage in pyramid.stages), None)
        images[name] = EncodedImage(pyramid, {}, {})
        for class_id in dataset.classes_in(name):
            ground_truth = dataset.ground_truth(name, class_id)
            images[name].ground_truths[class_id] = ground_truth
            images[name].masks[class_id] = transform.support_mask(ground_truth)
    return images, kept


def cases(images: dict[str, EncodedImage], by_class: dict[int, list[str]], others: bool) -> Iterator[Case]:
    """Draw the labelled image, the pool and the test images of each class and seed."""
    for class_id, names in by_class.items():
        for seed in SEEDS:
            drawn = shuffled(names, seed, class_id)
            pool, test = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
            absent = [name for name in images if class_id not in images[name].ground_truths]
            yield Case(class_id, seed, pool[0], pool[1:] + (absent if others else []), pool[1:], test)


def compare(
    method: Prototype, images: dict[str, EncodedImage], by_class: dict[int, list[str]], *, others: bool
) -> dict[str, Any]:
    """Evaluate every way to choose, and correlate confidence with IoU on the test images."""
    ious, hits, ranks = defaultdict[str, list[float]](list), defaultdict[str, list[int]](list), []
    for case in cases(images, by_class, others):
        class_id = case.class_id
        candidates = candidate_features(method, images, case)
        by_chance = shuffled(case.pool, case.seed, class_id, 1)[: SHOTS - 1]
        known = masked_average_pooling(images[case.labelled].pyramid, images[case.labelled].masks[class_id])
        suggested = [case.pool[place] for place in choose_images([known], candidates, SHOTS - 1)]
        for way, chosen in {"one": [], "chance": by_chance, "suggested": suggested}.items():
            showing = [name for name in chosen if name in case.showing]
            results = [
                segment(method, images, [case.labelled, *showing], name, class_id) for name in case.test
            ]
            ground_truths = [images[name].ground_truths[class_id] for name in case.test]
            pairs = zip(results, ground_truths, strict=True)
            counts = np.array(
                [count_pixels(one.mask[0].numpy(), ground_truth) for one, ground_truth in pairs]
            )
            ious[way].append(iou(counts.sum(axis=0)))
            hits[way].append(len(showing))
            if way == "one":
                each = [iou(row) for row in counts]
                sure = [float(a.probability[a.mask].mean()) if a.mask.any() else 0.0 for a in results]
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


def candidate_features(
    method: Prototype, images: dict[str, EncodedImage], case: Case
) -> list[ImagePrototypes]:
    """Summarise the pool's images, segmented with the one labelled image as support."""
    found = []
    for name in case.pool:
        result = segment(method, images, [case.labelled], name, case.class_id)
        found.append(masked_average_pooling(images[name].pyramid, result.probability[:, None]))
    return found


def segment(
    method: Prototype, images: dict[str, EncodedImage], supports: list[str], name: str, class_id: int
) -> Segmentation:
    """Segment an image, at its own size if it shows the class."""
    shots = [Support(images[n].pyramid, images[n].masks[class_id]) for n in supports]
    ground_truth = images[name].ground_truths.get(class_id)
    with torch.inference_mode():
        return method.segment(
            images[name].pyramid, shots, (SIZE, SIZE) if ground_truth is None else ground_truth.shape
        )


def table(found: dict[str, Any]) -> str:
    """Return the result as a table."""
    header = ("images to choose from", "classes x seeds", "1 support", "5, random", "5, suggested")
    header += ("gain (95 %)", "chosen images with the class, of 4: random / suggested")
    header += ("confidence against IoU (rank correlation)",)
    rows = []
    for name, one in found.items():
        if not isinstance(one, dict) or "miou" not in one:
            continue
        scores = [f"{100 * one['miou'][way]:.1f}" for way in ("one", "chance", "suggested")]
        low, high = (100 * x for x in one["gain"]["interval"])
        chosen = one["supports_chosen"]
        gain = f"{100 * one['gain']['mean']:+.1f} ({low:+.1f} to {high:+.1f})"
        numbers = f"{chosen['chance']:.1f} / {chosen['suggested']:.1f}"
        rank = f"{one['rank_correlation_of_confidence_with_iou']:.2f}"
        rows.append((name, f"{one['classes']} x {one['seeds']}", *scores, gain, numbers, rank))
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
