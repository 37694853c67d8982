"""Sample images: a photograph from scikit-image and drawn scenes."""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def photograph(width: int = 96, height: int = 72) -> Image.Image:
    """Give a photograph of a cat (Chelsea, S. van der Walt, CC0), small."""
    with files("skimage").joinpath("data/chelsea.png").open("rb") as file, Image.open(file) as picture:
        return picture.convert("RGB").resize((width, height))


def scene(
    left: int = 20, top: int = 20, width: int = 120, height: int = 90
) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Draw a red disc on green; give the picture and the disc's mask (H, W)."""
    picture, mask = Image.new("RGB", (width, height), (30, 110, 40)), Image.new("L", (width, height))
    box = (left, top, left + 40, top + 40)
    ImageDraw.Draw(picture).ellipse(box, fill=(220, 40, 30))
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    return picture, np.asarray(mask) == 1
