"""Draw masks and labels: overlays, heatmaps, contact sheets."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

OVERLAY_COLOUR = (230, 30, 60)

OVERLAY_OPACITY = 0.5

BAND = 512
"""Rows that are tinted at a time."""

CLASS_COLOURS = (
    OVERLAY_COLOUR,
    (0, 130, 220),
    (250, 180, 0),
    (0, 160, 90),
    (150, 70, 200),
    (0, 190, 200),
    (240, 110, 30),
    (230, 90, 170),
    (120, 150, 0),
    (130, 90, 60),
)
"""Colours of classes 1, 2, …; from the eleventh class on they come again, darker each time."""

GAP, HEADER = 6, 28
"""Pixels between the pictures of a contact sheet, and above them."""

ColourOf = Callable[[int], tuple[int, int, int]]
"""Gives a label's colour."""

Row = list[tuple[str, Image.Image]]
"""One row of a contact sheet: captions and pictures."""


def mask_picture(mask: NDArray[np.bool_]) -> Image.Image:
    """Draw a mask (H, W) as a greyscale picture, 255 on the object, which `read_mask` reads back."""
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(255))


def label_colour(label: int) -> tuple[int, int, int]:
    """Give the colour of a class, 1 to 255; 0, the background, is black."""
    if label == 0:
        return 0, 0, 0
    darker, place = divmod(label - 1, len(CLASS_COLOURS))
    red, green, blue = (round(value * 0.85**darker) for value in CLASS_COLOURS[place])
    return red, green, blue


def label_picture(labels: NDArray[np.uint8], colour_of: ColourOf = label_colour) -> Image.Image:
    """Draw labels (H, W) as a palette picture: its values are the labels, its colours the overlay's."""
    picture = Image.fromarray(labels).convert("P")
    picture.putpalette([value for label in range(256) for value in colour_of(label)])
    return picture


def overlay(picture: Image.Image, labels: NDArray[np.bool_] | NDArray[np.uint8]) -> Image.Image:
    """Tint the objects of a mask or a label map (H, W), and outline them; in the picture's own size."""
    tinted = picture.copy()
    tint(tinted, labels)
    return tinted


def tint(
    picture: Image.Image, labels: NDArray[np.bool_] | NDArray[np.uint8], colour_of: ColourOf = label_colour
) -> None:
    """Draw an overlay on the picture itself: of large ones a second would take too much memory."""
    colours = np.array([colour_of(label) for label in range(256)], dtype=np.uint8)
    for first in range(0, len(labels), BAND):
        # With the rows beside it, which are its neighbours too. Not a view: of bools that come from a 1-bit
        # picture, true ones are 255.
        above = min(first, 1)
        around = labels[first - above : first + BAND + 1].astype(np.uint8)
        band = around[above : above + BAND]
        objects = Image.fromarray((band > 0) * np.uint8(round(255 * OVERLAY_OPACITY)))
        picture.paste(Image.fromarray(colours[band]), (0, first), objects)
        outline = _outline(around)[above : above + BAND]
        picture.paste((255, 255, 255), (0, first), Image.fromarray(outline))


def captioned(picture: Image.Image, caption: str, colour: tuple[int, int, int]) -> Image.Image:
    """Put a caption on a coloured bar below a picture."""
    bar = Image.new("RGB", (picture.width, HEADER), colour)
    ImageDraw.Draw(bar).text(
        (picture.width // 2, HEADER // 2), caption, fill="white", anchor="mm", font_size=16
    )
    both = Image.new("RGB", (picture.width, picture.height + HEADER))
    both.paste(picture, (0, 0))
    both.paste(bar, (0, picture.height))
    return both


def heatmap(probability: NDArray[np.float32]) -> Image.Image:
    """Draw probabilities (H, W) in [0, 1] as grey levels, black for 0."""
    return Image.fromarray((probability * 255).round().astype(np.uint8)).convert("RGB")


def contact_sheet(rows: list[Row], cell: int = 240, titles: Sequence[str] = ()) -> Image.Image:
    """Lay captioned pictures out in rows; the first row's captions head the columns.

    Each picture is shrunk or enlarged to fit a square of `cell` pixels. titles: what stands above each row.
    """
    fitted = [[ImageOps.contain(picture, (cell, cell)) for _, picture in row] for row in rows]
    heights = [max(picture.height for picture in row) for row in fitted]
    width = max(len(row) for row in rows) * (cell + GAP) + GAP
    titled = HEADER if titles else 0
    sheet = Image.new("RGB", (width, HEADER + sum(heights) + (titled + GAP) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (caption, _) in enumerate(rows[0]):
        centre = GAP + column * (cell + GAP) + cell // 2
        draw.text((centre, HEADER // 2), caption, fill="black", anchor="mm", font_size=16)
    top = HEADER
    for title, pictures, height in zip(titles or [""] * len(rows), fitted, heights, strict=True):
        printable = "".join(letter if letter.isprintable() else "?" for letter in title)
        draw.text((GAP, top + titled // 2), printable, fill="black", anchor="lm", font_size=14)
        top += titled
        for column, picture in enumerate(pictures):
            left = GAP + column * (cell + GAP) + (cell - picture.width) // 2
            sheet.paste(picture, (left, top + (height - picture.height) // 2))
        top += height + GAP
    return sheet


def montage(pictures: list[Image.Image], cell: int) -> Image.Image:
    """Put pictures side by side in a square grid that fits `cell` pixels; one picture stays as it is."""
    if len(pictures) == 1:
        return pictures[0]
    side = math.ceil(math.sqrt(len(pictures)))
    tile = cell // side
    grid = Image.new("RGB", (side * tile, math.ceil(len(pictures) / side) * tile), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, side)
        grid.paste(ImageOps.pad(picture, (tile - 2, tile - 2), color="white"), (column * tile, row * tile))
    return grid


def _outline(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the objects' pixels that have a neighbour of another label."""
    outline = np.zeros(labels.shape, dtype=bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    outline[1:] |= down
    outline[:-1] |= down
    outline[:, 1:] |= across
    outline[:, :-1] |= across
    return outline & (labels > 0)
