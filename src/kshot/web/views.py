"""Render JPEG views of an image: the image itself, its overlay and its probability maps."""

from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from kshot.io.files import encode_image
from kshot.io.overlays import draw_overlay
from kshot.web.images import MapName, SessionImage
from kshot.web.session import Session

View = Literal["image", "overlay"] | MapName


def render_view(session: Session, image: SessionImage, view: View, value: int, side: int | None) -> bytes:
    """Render a view as JPEG.

    value: of the class whose probability map is shown. side: of the square in pixels that the result is
    shrunk to fit; None keeps its size.
    Raises KshotError if the map does not exist.
    """
    if view == "image" or view == "overlay":
        rendered = _shrink(session.pixels(image), side)
    else:
        rendered = _shrink(session.probability_map(image, view, value), side)
    if view == "overlay":
        labels = Image.fromarray(session.labels(image)).resize(rendered.size, Image.Resampling.NEAREST)
        draw_overlay(rendered, np.asarray(labels), session.colour)
    return encode_image(rendered, "JPEG", quality=85)


def _shrink(image: Image.Image, side: int | None) -> Image.Image:
    if side is None or max(image.size) <= side:
        return image
    return ImageOps.contain(image, (side, side), Image.Resampling.BICUBIC)
