"""Pictures out: overlays and contact sheets, and files that are written whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

OVERLAY_COLOUR = (230, 30, 60)
OVERLAY_OPACITY = 0.5


def mask_picture(mask: NDArray[np.bool_]) -> Image.Image:
    """Draw a mask (H, W) as a greyscale picture, 255 on the object, which `read_mask` reads back."""
    return Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))


def overlay(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """Tint the object and draw its outline on the picture, in the picture's own size."""
    pixels = np.asarray(picture, dtype=np.float32)
    tint = np.array(OVERLAY_COLOUR, dtype=np.float32)
    pixels = np.where(mask[..., None], pixels * (1 - OVERLAY_OPACITY) + tint * OVERLAY_OPACITY, pixels)
    pixels[_outline(mask)] = 255
    return Image.fromarray(pixels.round().astype(np.uint8))


def heatmap(probability: NDArray[np.float32]) -> Image.Image:
    """Draw probabilities (H, W) in [0, 1] as grey levels, black for 0."""
    return Image.fromarray((probability * 255).round().astype(np.uint8)).convert("RGB")


def contact_sheet(rows: list[list[tuple[str, Image.Image]]], cell: int = 240) -> Image.Image:
    """Lay captioned pictures out in rows; the first row's captions head the columns."""
    gap, header = 6, 20
    columns = max(len(row) for row in rows)
    height = header + len(rows) * (cell + gap)
    sheet = Image.new("RGB", (columns * (cell + gap) + gap, height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (caption, _) in enumerate(rows[0]):
        draw.text((gap + column * (cell + gap), 4), caption, fill="black")
    for index, row in enumerate(rows):
        for column, (_, picture) in enumerate(row):
            small = ImageOps.contain(picture, (cell, cell))
            left = gap + column * (cell + gap) + (cell - small.width) // 2
            sheet.paste(small, (left, header + index * (cell + gap) + (cell - small.height) // 2))
    return sheet


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, sync it and move it there.

    A file of that name is thus always whole: the old one or the new one. Makes missing folders.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".kshot-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of its suffix, whole or not at all."""
    with replacing(path) as temporary:
        picture.save(temporary)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside
