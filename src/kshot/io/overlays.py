"""Draw masks and label maps: overlays, heatmaps, contact sheets."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

OVERLAY_COLOUR = (230, 30, 60)

OVERLAY_OPACITY = 0.5

BAND = 512
"""Rows that are drawn at a time."""

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
"""Colours of classes 1, 2, …; from the eleventh class on they repeat, darker each time."""

GAP, HEADER = 6, 28
"""Pixels between the images of a contact sheet, and of the text line above them."""

ColourOf = Callable[[int], tuple[int, int, int]]
"""Returns the colour of a label."""

SheetRow = list[tuple[str, Image.Image]]
"""One row of a contact sheet: captions and images."""


def mask_image(mask: NDArray[np.bool_]) -> Image.Image:
    """Return a mask (H, W) as a greyscale image, 255 on the object, which `read_mask` can read."""
    return Image.fromarray(mask.astype(np.uint8) * np.uint8(255))


def label_colour(label: int) -> tuple[int, int, int]:
    """Return the colour of a class, 1 to 255, or of the background, 0, which is black."""
    if label == 0:
        return 0, 0, 0
    darker, index = divmod(label - 1, len(CLASS_COLOURS))
    red, green, blue = (round(value * 0.85**darker) for value in CLASS_COLOURS[index])
    return red, green, blue


def label_image(labels: NDArray[np.uint8], colour_of: ColourOf = label_colour) -> Image.Image:
    """Return a label map (H, W) as a palette image: its values are the labels."""
    image = Image.fromarray(labels).convert("P")
    image.putpalette([value for label in range(256) for value in colour_of(label)])
    return image


def overlay(image: Image.Image, labels: NDArray[np.bool_] | NDArray[np.uint8]) -> Image.Image:
    """Return a copy of the image with the objects of a mask or label map (H, W) tinted and outlined."""
    drawn = image.copy()
    draw_overlay(drawn, labels)
    return drawn


def draw_overlay(
    image: Image.Image, labels: NDArray[np.bool_] | NDArray[np.uint8], colour_of: ColourOf = label_colour
) -> None:
    """Draw an overlay on the image itself, which saves the memory of a copy."""
    colours = np.array([colour_of(label) for label in range(256)], dtype=np.uint8)
    for first in range(0, len(labels), BAND):
        # The rows above and below are needed for the outline. A copy, not a view: in bool arrays that come
        # from a 1-bit image, true values are 255.
        above = min(first, 1)
        padded = labels[first - above : first + BAND + 1].astype(np.uint8)
        band = padded[above : above + BAND]
        objects = Image.fromarray((band > 0) * np.uint8(round(255 * OVERLAY_OPACITY)))
        image.paste(Image.fromarray(colours[band]), (0, first), objects)
        outline = _outline(padded)[above : above + BAND]
        image.paste((255, 255, 255), (0, first), Image.fromarray(outline))


def add_caption(image: Image.Image, caption: str, colour: tuple[int, int, int]) -> Image.Image:
    """Return the image with a caption on a coloured bar below it."""
    bar = Image.new("RGB", (image.width, HEADER), colour)
    ImageDraw.Draw(bar).text(
        (image.width // 2, HEADER // 2), caption, fill="white", anchor="mm", font_size=16
    )
    both = Image.new("RGB", (image.width, image.height + HEADER))
    both.paste(image, (0, 0))
    both.paste(bar, (0, image.height))
    return both


def heatmap(probability: NDArray[np.float32]) -> Image.Image:
    """Return probabilities (H, W) in [0, 1] as a grey RGB image, black for 0."""
    return Image.fromarray((probability * 255).round().astype(np.uint8)).convert("RGB")


def contact_sheet(rows: list[SheetRow], cell: int = 240, titles: Sequence[str] = ()) -> Image.Image:
    """Return captioned images laid out in rows; the first row's captions are the column headings.

    cell: each image is resized to fit a square of this many pixels. titles: text above each row.
    """
    fitted = [[ImageOps.contain(image, (cell, cell)) for _, image in row] for row in rows]
    heights = [max(image.height for image in row) for row in fitted]
    width = max(len(row) for row in rows) * (cell + GAP) + GAP
    title_height = HEADER if titles else 0
    sheet = Image.new("RGB", (width, HEADER + sum(heights) + (title_height + GAP) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (caption, _) in enumerate(rows[0]):
        centre = GAP + column * (cell + GAP) + cell // 2
        draw.text((centre, HEADER // 2), caption, fill="black", anchor="mm", font_size=16)
    top = HEADER
    for title, images, height in zip(titles or [""] * len(rows), fitted, heights, strict=True):
        printable = "".join(letter if letter.isprintable() else "?" for letter in title)
        draw.text((GAP, top + title_height // 2), printable, fill="black", anchor="lm", font_size=14)
        top += title_height
        for column, image in enumerate(images):
            left = GAP + column * (cell + GAP) + (cell - image.width) // 2
            sheet.paste(image, (left, top + (height - image.height) // 2))
        top += height + GAP
    return sheet


def montage(images: list[Image.Image], cell: int) -> Image.Image:
    """Return images side by side in a square grid of at most `cell` pixels; a single image is unchanged."""
    if len(images) == 1:
        return images[0]
    side = math.ceil(math.sqrt(len(images)))
    tile = cell // side
    grid = Image.new("RGB", (side * tile, math.ceil(len(images) / side) * tile), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, side)
        grid.paste(ImageOps.pad(image, (tile - 2, tile - 2), color="white"), (column * tile, row * tile))
    return grid


def _outline(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the objects' pixels that have a neighbour of another label."""
    outline = np.zeros(labels.shape, dtype=bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    outline[1:] |= down
    outline[:-1] |= down
    outline[:, 1:] |= across
    outline[:, :-1] |= across
    return outline & (labels > 0)
