"""Are small objects found better in tiles? And what becomes of larger ones?

    python benchmarks/small_objects.py --coco-mini DIR [--into docs/images.md]

Run it from the repository's root. An episode is a photograph that shows a class, and a labelled one that
shows it too; in both the largest object is small, or in both it is larger. coco-mini's photographs have 640
pixels; for large ones with small things in them both are also laid among eight that do not show the class.
Each is segmented whole and in tiles, by each method, so that all are compared on the same episodes. What is
counted is kept after every episode: a stopped run goes on.
"""

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kshot.data.base import Dataset
from kshot.data.benchmarks import open_dataset
from kshot.data.folds import COCO_CLASSES, VOC_CLASSES_OF_COCO
from kshot.data.sampling import shuffled
from kshot.evaluation.metrics import bootstrap, count_pixels, interval, score
from kshot.io.files import write_text
from kshot.io.images import read_image
from kshot.io.provenance import record_provenance
from kshot.reproduction.table_writers import insert_between
from kshot.segmenter import Segmenter
from kshot.types import IGNORE_INDEX, GroundTruth

RESULT = Path("benchmarks/results/small_objects.json")
METHODS = ("prototype", "two-pass")
CELL = 640
"""Longest side of coco-mini's photographs, and the side of the square that one has among others."""
MIN_IMAGES = 5
"""Photographs of a class and size, with fewer of which it is left out."""


class Size(NamedTuple):
    """A part of the photograph that the largest object of a class may cover, from `least` to below `most`.

    episodes: of each class. tile: of the windows. side: photographs that are laid side by side, and above
    one another.
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--coco-mini", type=Path)
    parser.add_argument("--into", type=Path)
    given = parser.parse_args()
    if given.coco_mini is not None:
        measure(given.coco_mini)
    if given.into is not None:
        made = table(json.loads(RESULT.read_text()))
        write_text(insert_between(given.into.read_text(), "table-small-objects", made), given.into)


def measure(coco_mini: Path) -> None:
    """Segment the episodes that the result file does not have yet."""
    dataset = open_dataset("coco-mini-60", coco_mini)
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {"sizes": {}}
    for name, size in SIZES.items():
        if name not in found["sizes"]:
            provenance = record_provenance([]).model_dump() | {"command": "make small-objects"}
            episodes = draw(coco_mini, size)
            found["sizes"][name] = {
                "provenance": provenance,
                "tile": size.tile,
                "episodes": episodes,
                "counts": {},
            }
    for method in METHODS:
        for name, size in SIZES.items():
            models = [Segmenter.from_pretrained(method, tile=tile) for tile in (None, size.tile)]
            one = found["sizes"][name]
            counts = one["counts"].setdefault(method, [])
            for number, episode in enumerate(one["episodes"][len(counts) :], len(counts) + 1):
                counts.append(run(models, dataset, size.side, *episode))
                write_text(json.dumps(found) + "\n", RESULT)
                print(f"{method}, {name}: {number}/{len(one['episodes'])}", flush=True)


def draw(coco_mini: Path, size: Size) -> list[tuple[int, str, str]]:
    """Draw class, query and support, as many of each class that VOC lacks and enough photographs show."""
    episodes = []
    for class_id, names in photographs(coco_mini, size).items():
        if len(names) < MIN_IMAGES:
            continue
        queries = shuffled(names, 0, class_id)
        for index in range(size.episodes):
            query = queries[index % len(queries)]
            support = shuffled([name for name in names if name != query], 0, class_id, index)[0]
            episodes.append((class_id, query, support))
    return episodes


def photographs(coco_mini: Path, size: Size) -> dict[int, list[str]]:
    """Find the photographs in which a class's largest object has a size, and that hold no crowds of it."""
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
    """Segment one query with one support by each model, and count."""
    labelled, support_truth = laid_out(dataset, side, class_id, support)
    picture, ground_truth = laid_out(dataset, side, class_id, query)
    masks = [model.fit(labelled, support_truth == 1).predict(picture).mask for model in models]
    return [count for mask in masks for count in count_pixels(mask, ground_truth)]


def laid_out(dataset: Dataset, side: int, class_id: int, name: str) -> tuple[Image.Image, GroundTruth]:
    """Lay a photograph among others that do not show the class, at a drawn place; between them is black."""
    if side == 1:
        return read_image(dataset.image_path(name)), dataset.ground_truth(name, class_id)
    all_names = sorted(path.stem for path in dataset.image_path(name).parent.iterdir())
    drawn = shuffled(all_names, 0, class_id, int(name))
    others = islice((n for n in drawn if class_id not in dataset.classes_in(n)), side * side - 1)
    picture = Image.new("RGB", (side * CELL, side * CELL))
    ground_truth = np.full((side * CELL, side * CELL), IGNORE_INDEX, np.uint8)
    for place, shown in enumerate(shuffled([name, *others], 1, class_id, int(name))):
        top, left = (CELL * n for n in divmod(place, side))
        picture.paste(read_image(dataset.image_path(shown)), (left, top))
        part = dataset.ground_truth(shown, class_id)
        ground_truth[top : top + part.shape[0], left : left + part.shape[1]] = part
    return picture, ground_truth


def compared(one: dict[str, Any], method: str) -> dict[str, Any]:
    """Score a method whole and in tiles on the same episodes: mIoU, and the gain with its interval."""
    counts = np.array(one["counts"][method])
    class_ids = np.array([class_id for class_id, _, _ in one["episodes"]])
    classes = sorted(set(class_ids.tolist()))
    whole, tiled = (score(counts[:, part], class_ids, classes) for part in (slice(4), slice(4, 8)))
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
    """Write the result as a table."""
    lines = [
        "| largest object, of its photograph | tile | method | classes, episodes | whole | tiles | "
        "gain (95 %) | classes that gain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found["sizes"].items():
        for method, counts in one["counts"].items():
            if len(counts) < len(one["episodes"]):
                continue
            scores = compared(one, method)
            low, high = (100 * x for x in scores["interval"])
            lines.append(
                f"| {name} | {one['tile']} | {method} | {scores['classes']}, {scores['episodes']} | "
                f"{100 * scores['whole']:.1f} | {100 * scores['tiled']:.1f} | "
                f"{100 * scores['gain']:+.1f} ({low:+.1f} to {high:+.1f}) | {scores['better']} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
