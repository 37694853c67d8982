"""Segment scikit-image's photographs from annotations drawn by hand: `make demo`.

    python demo/demo.py [ANNOTATION ...] [--picture FILE]

Nothing is downloaded: photographs and weights come with installed packages.
"""

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from kshot import Segmenter
from kshot.io.files import save_image
from kshot.io.overlays import SheetRow, contact_sheet, mask_image, overlay
from kshot.predict.runner import sheet_row
from kshot.results import SegmentationResult

HERE = Path(__file__).parent


class Episode(NamedTuple):
    """The photograph to segment, the model to do it with, and the side in pixels at which it works."""

    query: str
    model: str
    image_size: int | None = None


SMALL_THINGS = 641
"""Coins are small: the finer the grid, the better they come out."""

# Whole objects, like those that it was trained on, are for two-pass-plus; parts, textures and small things
# for prototypes, which know no objects. The last is a hard one: a woman in an orange suit, in colour, to
# find a man in a black coat, in grey.
EPISODES = {
    "coins": Episode("coins", "prototype", SMALL_THINGS),
    "eye": Episode("chelsea", "prototype", SMALL_THINGS),
    "gland": Episode("immunohistochemistry", "prototype", SMALL_THINGS),
    "motorcycle": Episode("motorcycle_right", "two-pass-plus"),
    "person": Episode("camera", "two-pass-plus"),
}


def main(names: list[str], picture: Path) -> None:
    """Segment the named episodes; write masks and overlays beside one picture with all of them."""
    rows: dict[str, list[SheetRow]] = {}
    load = cache(Segmenter.from_pretrained)
    for name in names:
        query_name, model, image_size = EPISODES[name]
        query = photograph(query_name)
        result, row = segmented(load(model, image_size=image_size), name, query)
        save_image(mask_image(result.mask), picture.parent / f"{name}_mask.png")
        save_image(overlay(query, result.mask), picture.parent / f"{name}_overlay.png")
        rows.setdefault(model, []).append(row)
        print(f"{name}: {100 * result.mask.mean():.1f} % of {query_name} is foreground, by {model}")
    save_image(stacked([contact_sheet(found) for found in rows.values()]), picture)
    print(f"Look at {picture}")


def segmented(segmenter: Segmenter, name: str, query: Image.Image) -> tuple[SegmentationResult, SheetRow]:
    """Segment a photograph from an annotation; give the answer, and its row in a sheet."""
    support, mask = annotated(name)
    result = segmenter.fit(support, mask).predict(query)
    return result, sheet_row(overlay(support, mask), query, result)


def stacked(sheets: list[Image.Image]) -> Image.Image:
    """Put one model's sheet below another's."""
    width, height = max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)
    whole, top = Image.new("RGB", (width, height), "white"), 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return whole


def photograph(name: str) -> Image.Image:
    """Give one of scikit-image's photographs, in RGB."""
    if name.startswith("motorcycle_"):
        left, right, _ = data.stereo_motorcycle()
        pixels = left if name == "motorcycle_left" else right
    else:
        pixels = getattr(data, name)()
    return Image.fromarray(pixels).convert("RGB")


def annotated(name: str) -> tuple[Image.Image, Any]:
    """Give an annotated photograph, cropped if its annotation says so, and its mask."""
    annotation = json.loads((HERE / "annotations" / f"{name}.json").read_text())
    picture = photograph(annotation["photograph"])
    mask = Image.new("1", picture.size)
    for polygon in annotation["polygons"]:
        ImageDraw.Draw(mask).polygon([tuple(point) for point in polygon], fill=1)
    if annotation["crop"]:
        picture, mask = picture.crop(annotation["crop"]), mask.crop(annotation["crop"])
    return picture, np.asarray(mask)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Segment scikit-image's photographs.")
    parser.add_argument("names", nargs="*", default=list(EPISODES), help="episodes; all of them if none")
    parser.add_argument("--picture", type=Path, default=Path("demo/out/demo.png"), help="contact sheet")
    arguments = parser.parse_args()
    main(arguments.names, arguments.picture)
