"""Segment scikit-image's sample images from hand-drawn annotations: `make demo`.

    python demo/demo.py [ANNOTATION ...] [--out FILE]

Nothing is downloaded: images and weights come with installed packages.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from kshot import Segmenter
from kshot.io.files import save_image
from kshot.io.overlays import SheetRow, contact_sheet, mask_image, overlay
from kshot.predict.runner import sheet_row
from kshot.results import SegmentationResult

HERE = Path(__file__).parent


MODEL = "two-pass-general"

EPISODES = {
    "coins": "coins",
    "eye": "chelsea",
    "gland": "immunohistochemistry",
    "motorcycle": "motorcycle_right",
    "person": "camera",
}
"""The labelled object, and the image in which it is segmented. The last one is hard: the support is a woman
in an orange suit, the query a grey image of a man in a black coat."""


def main(names: list[str], out: Path) -> None:
    """Segment the named episodes; write masks and overlays, and a contact sheet of all of them."""
    rows = list[SheetRow]()
    segmenter = Segmenter.from_pretrained(MODEL)
    for name in names:
        query = sample_image(EPISODES[name])
        result, row = segment(segmenter, name, query)
        save_image(mask_image(result.mask), out.parent / f"{name}_mask.png")
        save_image(overlay(query, result.mask), out.parent / f"{name}_overlay.png")
        rows.append(row)
        print(f"{name}: {100 * result.mask.mean():.1f} % of {EPISODES[name]} is foreground")
    save_image(contact_sheet(rows), out)
    print(f"Wrote {out}")


def segment(segmenter: Segmenter, name: str, query: Image.Image) -> tuple[SegmentationResult, SheetRow]:
    """Segment an image with an annotation as support; return the result and its row in a sheet."""
    support, mask = annotated_image(name)
    result = segmenter.fit(support, mask).predict(query)
    return result, sheet_row(overlay(support, mask), query, result)


def sample_image(name: str) -> Image.Image:
    """Return one of scikit-image's sample images, in RGB."""
    if name.startswith("motorcycle_"):
        left, right, _ = data.stereo_motorcycle()
        pixels = left if name == "motorcycle_left" else right
    else:
        pixels = getattr(data, name)()
    return Image.fromarray(pixels).convert("RGB")


def annotated_image(name: str) -> tuple[Image.Image, Any]:
    """Return an annotated image, cropped if its annotation says so, and its mask."""
    annotation = json.loads((HERE / "annotations" / f"{name}.json").read_text())
    image = sample_image(annotation["image"])
    mask = Image.new("1", image.size)
    for polygon in annotation["polygons"]:
        ImageDraw.Draw(mask).polygon([tuple(point) for point in polygon], fill=1)
    if annotation["crop"]:
        image, mask = image.crop(annotation["crop"]), mask.crop(annotation["crop"])
    return image, np.asarray(mask)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Segment scikit-image's sample images.")
    parser.add_argument("names", nargs="*", default=list(EPISODES), help="episodes; default all")
    parser.add_argument("--out", type=Path, default=Path("demo/out/demo.png"), help="contact sheet to write")
    arguments = parser.parse_args()
    main(arguments.names, arguments.out)
