"""Sample images: a photograph from scikit-image and drawn scenes."""

from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def cat_image(width: int = 96, height: int = 72) -> Image.Image:
    """Return a small image of a cat (Chelsea, S. van der Walt, CC0)."""
    with files("skimage").joinpath("data/chelsea.png").open("rb") as file, Image.open(file) as image:
        return image.convert("RGB").resize((width, height))


def scene(
    left: int = 20, top: int = 20, width: int = 120, height: int = 90
) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Draw a red disc on green; return the image and the mask (H, W) of the disc."""
    image, mask = Image.new("RGB", (width, height), (30, 110, 40)), Image.new("L", (width, height))
    box = (left, top, left + 40, top + 40)
    ImageDraw.Draw(image).ellipse(box, fill=(220, 40, 30))
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    return image, np.asarray(mask) == 1
