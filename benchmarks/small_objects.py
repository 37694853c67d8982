"""Measure whether tiles improve the masks of small objects, and their effect on larger ones.

    python benchmarks/small_objects.py --coco-mini DIR [--into docs/images.md]

Run from the repository's root. In an episode the largest object of the class is small in both the query and
the support image, or larger in both. coco-mini's images have 640 pixels; to get large images with small
objects, both are also placed among eight images without the class. Each method segments each query whole and
in tiles, so that all are compared on the same episodes. Counts are saved after every episode, so a stopped
run can be resumed.
"""

import json
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import (
    RESULTS,
    insert_table,
    make_parser,
    markdown_table,
    provenance,
    read_json,
    write_json,
)
from PIL import Image

from kshot.data.base import Dataset
from kshot.data.benchmarks import open_dataset
from kshot.data.folds import COCO_CLASSES, VOC_CLASSES_OF_COCO
from kshot.data.sampling import shuffled
from kshot.evaluation.metrics import bootstrap, count_pixels, interval, score_episodes
from kshot.io.images import read_image
from kshot.segmenter import Segmenter
from kshot.types import IGNORE_INDEX, GroundTruth

RESULT = RESULTS / "small_objects.json"
METHODS = ("prototype", "two-pass")
CELL = 640
"""Longest side of coco-mini's images, and side of the square cell of one image among others."""
MIN_IMAGES = 5
"""Smallest number of images of a class and size; classes with fewer are excluded."""


class Size(NamedTuple):
    """Bin of the share of the image that the largest object of a class covers: from `least` to below `most`.

    episodes: number per class. tile: side of the windows in pixels. side: images per row and column, if the
    image is placed among others.
    """

    least: float
    most: float
    episodes: int
    tile: int
    side: int = 1


SIZES = {
    "0.1 to 1 %": Size(0.001, 0.01, 8, CELL // 2),
    "1 % and more": Size(0.01, 1.1, 4, CELL // 2),
    "1 % and more, of one among 3 x 3": Size(0.01, 1.1, 2, CELL, side=3),
}


def main() -> None:
    """Measure what is missing, and write the table."""
    given = make_parser(__doc__, "coco-mini", into=True).parse_args()
    if given.coco_mini is not None:
        measure(given.coco_mini)
    insert_table(given.into, "table-small-objects", table(read_json(RESULT)))


def measure(coco_mini: Path) -> None:
    """Segment the episodes that are not in the result file yet."""
    dataset = open_dataset("coco-mini-60", coco_mini)
    found = read_json(RESULT) or {"sizes": {}}
    for name, size in SIZES.items():
        if name not in found["sizes"]:
            start = {"tile": size.tile, "episodes": draw(coco_mini, size), "counts": {}}
            found["sizes"][name] = {"provenance": provenance("make small-objects"), **start}
    for method in METHODS:
        for name, size in SIZES.items():
            models = [Segmenter.from_pretrained(method, tile=tile) for tile in (None, size.tile)]
            one = found["sizes"][name]
            counts = one["counts"].setdefault(method, [])
            for number, episode in enumerate(one["episodes"][len(counts) :], len(counts) + 1):
                counts.append(run(models, dataset, size.side, *episode))
                write_json(found, RESULT, indent=None)
                print(f"{method}, {name}: {number}/{len(one['episodes'])}", flush=True)


def draw(coco_mini: Path, size: Size) -> list[tuple[int, str, str]]:
    """Draw (class, query, support): the same number for each class outside VOC with enough images."""
    episodes = []
    for class_id, names in images_of_size(coco_mini, size).items():
        if len(names) < MIN_IMAGES:
            continue
        queries = shuffled(names, 0, class_id)
        for index in range(size.episodes):
            query = queries[index % len(queries)]
            support = shuffled([name for name in names if name != query], 0, class_id, index)[0]
            episodes.append((class_id, query, support))
    return episodes


def images_of_size(coco_mini: Path, size: Size) -> dict[int, list[str]]:
    """Return, by class, the images whose largest object has this size and that show no crowd of the class."""
    annotated = json.loads((coco_mini / "instances.json").read_text())
    classes = {category["id"]: COCO_CLASSES.index(category["name"]) for category in annotated["categories"]}
    images = {image["id"]: image for image in annotated["images"]}
    largest: dict[tuple[int, str], float] = {}
    for thing in annotated["annotations"]:
        image = images[thing["image_id"]]
        key = classes[thing["category_id"]], Path(image["file_name"]).stem
        share = 2.0 if thing["iscrowd"] else thing["area"] / (image["width"] * image["height"])
        largest[key] = max(share, largest.get(key, 0.0))
    found: dict[int, list[str]] = {}
    for (class_id, name), share in sorted(largest.items()):
        if size.least <= share < size.most and COCO_CLASSES[class_id] not in VOC_CLASSES_OF_COCO:
            found.setdefault(class_id, []).append(name)
    return found


def run(
    models: list[Segmenter], dataset: Dataset, side: int, class_id: int, query: str, support: str
) -> list[int]:
    """Segment one query with one support by each model; return the pixel counts."""
    support_image, support_truth = place_among_others(dataset, side, class_id, support)
    image, ground_truth = place_among_others(dataset, side, class_id, query)
    masks = [model.fit(support_image, support_truth == 1).predict(image).mask for model in models]
    return [count for mask in masks for count in count_pixels(mask, ground_truth)]


def place_among_others(
    dataset: Dataset, side: int, class_id: int, name: str
) -> tuple[Image.Image, GroundTruth]:
    """Place an image at a random cell of a black grid, among images without the class."""
    if side == 1:
        return read_image(dataset.image_path(name)), dataset.ground_truth(name, class_id)
    all_names = sorted(path.stem for path in dataset.image_path(name).parent.iterdir())
    drawn = shuffled(all_names, 0, class_id, int(name))
    others = islice((n for n in drawn if class_id not in dataset.classes_in(n)), side * side - 1)
    canvas = Image.new("RGB", (side * CELL, side * CELL))
    ground_truth = np.full((side * CELL, side * CELL), IGNORE_INDEX, np.uint8)
    for place, shown in enumerate(shuffled([name, *others], 1, class_id, int(name))):
        top, left = (CELL * n for n in divmod(place, side))
        canvas.paste(read_image(dataset.image_path(shown)), (left, top))
        part = dataset.ground_truth(shown, class_id)
        ground_truth[top : top + part.shape[0], left : left + part.shape[1]] = part
    return canvas, ground_truth


def compare(one: dict[str, Any], method: str) -> dict[str, Any]:
    """Return a method's mIoU on whole images and in tiles, and the paired gain with its interval."""
    counts = np.array(one["counts"][method])
    class_ids = np.array([class_id for class_id, _, _ in one["episodes"]])
    classes = sorted(set(class_ids.tolist()))
    whole, tiled = (score_episodes(counts[:, part], class_ids, classes) for part in (slice(4), slice(4, 8)))
    resampled = bootstrap(counts, class_ids, classes)[..., 0]
    return {
        "classes": len(classes),
        "episodes": len(counts),
        "whole": whole.miou,
        "tiled": tiled.miou,
        "gain": tiled.miou - whole.miou,
        "interval": interval(resampled[1] - resampled[0]),
        "better": int(sum(tiled.class_iou[c] > whole.class_iou[c] for c in classes)),
    }


def table(found: dict[str, Any]) -> str:
    """Return the result as a table."""
    header = ("largest object, share of the image", "tile", "method", "classes, episodes", "whole", "tiles")
    header += ("gain (95 %)", "classes that gain")
    rows = []
    for name, one in found["sizes"].items():
        for method, counts in one["counts"].items():
            if len(counts) < len(one["episodes"]):
                continue
            scores = compare(one, method)
            low, high = (100 * x for x in scores["interval"])
            number = f"{scores['classes']}, {scores['episodes']}"
            mious = [f"{100 * scores[kind]:.1f}" for kind in ("whole", "tiled")]
            gain = f"{100 * scores['gain']:+.1f} ({low:+.1f} to {high:+.1f})"
            rows.append((name, one["tile"], method, number, *mious, gain, scores["better"]))
    return markdown_table(header, rows)


if __name__ == "__main__":
    main()
