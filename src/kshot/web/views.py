"""Pictures of a photograph to look at, in JPEG: itself, its result, the steps to it."""

from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from kshot.io.files import encoded
from kshot.io.overlays import tint
from kshot.web.images import Photograph, Step
from kshot.web.session import Session

View = Literal["photo", "overlay"] | Step


def view(session: Session, photograph: Photograph, kind: View, value: int, side: int | None) -> bytes:
    """Draw a view of a photograph as a JPEG; a class's `value` chooses among the probabilities.

    side: of the square in pixels into which the picture is shrunk; None leaves its size.
    Raises KshotError if there is no such result.
    """
    if kind == "photo" or kind == "overlay":
        picture = _shrunk(session.picture(photograph), side)
    else:
        picture = _shrunk(session.step(photograph, kind, value), side)
    if kind == "overlay":
        labels = Image.fromarray(session.labels(photograph)).resize(picture.size, Image.Resampling.NEAREST)
        tint(picture, np.asarray(labels), session.colour)
    return encoded(picture, "JPEG", quality=85)


def _shrunk(picture: Image.Image, side: int | None) -> Image.Image:
    if side is None or max(picture.size) <= side:
        return picture
    return ImageOps.contain(picture, (side, side), Image.Resampling.BICUBIC)
