"""Synthetic pairs of images with exact masks.

Three kinds of targets that the benchmarks' images lack: small repeated items of which one or two are
labelled, textures beside textures, and thin structures over a texture. Materials are patches of training
images; the two images of a pair share only their materials and their style.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

from kshot.types import GroundTruth

Mask = NDArray[np.bool_]
Random = np.random.Generator


class MaskedImage(NamedTuple):
    """An image of an episode. mask: 1 on the class, 0 elsewhere, 255 ignored."""

    image: Image.Image
    mask: GroundTruth


class Pair(NamedTuple):
    """The two images of an episode. class_name: None if the class has no name."""

    query: MaskedImage
    support: MaskedImage
    class_name: str | None = None


class Item(NamedTuple):
    """An item to paste: an RGB image and its shape, both cropped to the shape's bounding box."""

    image: Image.Image
    shape: Mask


def patch(
    image: Image.Image, random: Random, size: int, share: tuple[float, float] = (0.15, 0.9)
) -> Image.Image:
    """Return a material: a random square of an image, resized to (size, size)."""
    side = max(8, round(min(image.size) * random.uniform(*share)))
    left = int(random.integers(0, image.width - side + 1))
    top = int(random.integers(0, image.height - side + 1))
    return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def blobs(random: Random, size: int, count: int, roughness: float = 0.15) -> NDArray[np.int64]:
    """Divide a square into `count` cells with rough borders; return cell numbers from 0, (size, size)."""
    points = random.random((count, 2)) * size
    warp = np.stack([_noise(random, size, size / 12) for _ in range(2)]) * size * roughness
    rows, columns = np.mgrid[:size, :size] + warp
    distances = np.stack([(rows - y) ** 2 + (columns - x) ** 2 for y, x in points])
    cells: NDArray[np.int64] = distances.argmin(axis=0)
    return cells


def draw_mosaic(materials: list[Image.Image], random: Random, size: int) -> Pair:
    """Draw two layouts of the same two or more materials; the first material is the class."""
    return Pair(_mosaic(materials, random, size), _mosaic(materials, random, size))


def _mosaic(materials: list[Image.Image], random: Random, size: int) -> MaskedImage:
    count = int(random.integers(len(materials), 3 * len(materials) + 1))
    cells = blobs(random, size, count, random.uniform(0.02, 0.2))
    owner = np.arange(count) % len(materials)
    random.shuffle(owner)
    layers = np.stack([np.asarray(patch(one, random, size, (0.4, 1.0))) for one in materials])
    chosen = owner[cells]
    pixels = np.take_along_axis(layers, chosen[None, ..., None], axis=0)[0]
    return MaskedImage(Image.fromarray(pixels), (chosen == 0).astype(np.uint8))


class Stroke(NamedTuple):
    """The style of thin structures. kind: shape; width: range in pixels; soft: blur radius."""

    kind: str
    width: tuple[float, float]
    color: tuple[int, int, int]
    opacity: float
    soft: float
    inverse: bool
    """The class is the area between membranes."""


def draw_thin(background: Image.Image, random: Random, size: int) -> Pair:
    """Draw cracks, vessels, scratches or membranes of one style over two patches of a background."""
    width = random.uniform(1.0, 4.0)
    base = np.asarray(background).reshape(-1, 3).mean(axis=0)
    dark = random.random() < 0.6
    level = random.uniform(0.0, 0.55) if dark else random.uniform(1.5, 3.0)
    tint = random.normal(0, 12, 3)
    kind = str(random.choice(["crack", "vessel", "scratch", "membrane"]))
    stroke = Stroke(
        kind=kind,
        width=(width, width * random.uniform(1.0, 2.0)),
        color=tuple(int(v) for v in (base * level + tint).clip(0, 255)),  # type: ignore[arg-type]
        opacity=random.uniform(0.6, 1.0),
        soft=random.uniform(0.3, 1.0),
        inverse=kind == "membrane" and random.random() < 0.4,
    )
    return Pair(_thin(background, stroke, random, size), _thin(background, stroke, random, size))


def _thin(background: Image.Image, stroke: Stroke, random: Random, size: int) -> MaskedImage:
    image = patch(background, random, size, (0.1, 0.5))
    double = Image.new("L", (2 * size, 2 * size))  # twice the size, for smooth edges
    draw = ImageDraw.Draw(double)
    if stroke.kind == "membrane":
        cells = blobs(random, size, int(random.integers(8, 40)), 0.08)
        edges = (np.diff(cells, axis=0, prepend=cells[:1]) != 0) | (
            np.diff(cells, axis=1, prepend=cells[:, :1]) != 0
        )
        wide = ImageFilter.MaxFilter(2 * max(1, round(stroke.width[0] / 2)) + 1)
        drawn = Image.fromarray((edges * 255).astype(np.uint8)).filter(wide)
    else:
        for _ in range(int(random.integers(1, 5))):
            _line(draw, random, stroke, 2 * size)
        drawn = double.resize((size, size), Image.Resampling.BOX)
    alpha = np.asarray(drawn.filter(ImageFilter.GaussianBlur(stroke.soft)), dtype=float)[..., None] / 255
    pixels = (
        np.asarray(image) * (1 - alpha * stroke.opacity) + np.array(stroke.color) * alpha * stroke.opacity
    )
    mask = (np.asarray(drawn) >= 128) != stroke.inverse
    return MaskedImage(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask.astype(np.uint8))


def _line(draw: ImageDraw.ImageDraw, random: Random, stroke: Stroke, size: int, depth: int = 0) -> None:
    """Draw a random line over the canvas; vessels branch."""
    bend = {"crack": 0.5, "vessel": 0.2, "scratch": 0.02}[stroke.kind]
    x, y = random.random(2) * size
    direction = random.uniform(0, 2 * math.pi)
    _walk(draw, random, stroke, size, (x, y), direction, bend, depth)


def _walk(
    draw: ImageDraw.ImageDraw,
    random: Random,
    stroke: Stroke,
    size: int,
    start: tuple[float, float],
    direction: float,
    bend: float,
    depth: int,
) -> None:
    x, y = start
    step = size / 25
    for _ in range(int(random.integers(5, 30)) >> depth):
        direction += random.normal(0, bend)
        ahead = x + step * math.cos(direction), y + step * math.sin(direction)
        width = max(1, round(2 * random.uniform(*stroke.width) / (1 + 0.5 * depth)))
        draw.line([(x, y), ahead], fill=255, width=width)
        draw.ellipse(
            [ahead[0] - width / 2, ahead[1] - width / 2, ahead[0] + width / 2, ahead[1] + width / 2], fill=255
        )
        x, y = ahead
        if stroke.kind == "vessel" and depth < 2 and random.random() < 0.15:
            turn = random.choice([-1, 1]) * random.uniform(0.4, 1.0)
            _walk(draw, random, stroke, size, (x, y), direction + turn, bend, depth + 1)


def round_item(material: Image.Image, random: Random) -> Item:
    """Return a round item of a material, such as a cell or a grain, with a radial shading."""
    side = 48
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    wobble = 1 + 0.12 * np.convolve(random.normal(size=24), np.ones(5) / 5, mode="same")
    radii = wobble * (side / 2 - 2) * random.uniform(0.75, 1.0)
    flat = random.uniform(0.55, 1.0)
    shape = Image.new("1", (side, side))
    ImageDraw.Draw(shape).polygon(
        [
            (side / 2 + r * math.cos(a), side / 2 + flat * r * math.sin(a))
            for r, a in zip(radii, angles, strict=True)
        ],
        fill=1,
    )
    rows, columns = np.mgrid[:side, :side] - side / 2
    shade = 1 + random.uniform(-0.6, 0.6) * np.hypot(rows, columns) / side
    pixels = np.asarray(patch(material, random, side)) * shade[..., None] * random.uniform(0.5, 1.5)
    return Item(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), np.asarray(shape))


def draw_items(background: Image.Image, item: Item, other: Item | None, random: Random, size: int) -> Pair:
    """Paste many small copies of an item over patches of a background.

    other: another item, which is pasted too but is not the class. The query's mask marks all copies. In half
    of the supports the mask marks one or two, and the others are ignored.
    """
    side = math.exp(random.uniform(math.log(size / 28), math.log(size / 5)))
    plain = random.random() < 0.3  # a plain ground, as under a microscope
    pairs = [_items(background, item, other, side, plain, random, size) for _ in range(2)]
    (query, numbers), (support, support_numbers) = pairs
    mask = np.where(support_numbers > 0, 1, 0).astype(np.uint8)
    if random.random() < 0.5:
        labelled = np.unique(support_numbers[support_numbers > 0])
        labelled = random.permutation(labelled)[: int(random.integers(1, 3))]
        mask[(support_numbers > 0) & ~np.isin(support_numbers, labelled)] = 255
    return Pair(MaskedImage(query, (numbers > 0).astype(np.uint8)), MaskedImage(support, mask))


def _items(
    background: Image.Image,
    item: Item,
    other: Item | None,
    side: float,
    plain: bool,
    random: Random,
    size: int,
) -> tuple[Image.Image, NDArray[np.int64]]:
    """Return an image, and the number of the class's item at each pixel, 0 for none, (size, size)."""
    ground = patch(background, random, size)
    if plain:
        ground = ground.filter(ImageFilter.GaussianBlur(size / 16))
    canvas, numbers = np.array(ground), np.zeros((size, size), dtype=np.int64)
    capacity = max(2, round(0.35 * (size / side) ** 2))
    for number in range(1, int(random.integers(2, min(capacity, 40) + 1)) + 1):
        is_class = other is None or number <= 1 or random.random() < 0.6
        pasted = item if is_class or other is None else other
        _paste(canvas, numbers, pasted, number if is_class else 0, side, random)
    return Image.fromarray(canvas), numbers


def _paste(
    canvas: NDArray[np.uint8],
    numbers: NDArray[np.int64],
    item: Item,
    number: int,
    side: float,
    random: Random,
) -> None:
    size = len(canvas)
    scale = side * random.uniform(0.7, 1.4) / max(item.image.size)
    sides = [max(4, round(length * scale)) for length in item.image.size]
    degrees = random.uniform(0, 360)
    image = item.image.resize((sides[0], sides[1])).rotate(degrees, Image.Resampling.BILINEAR, expand=True)
    shape = Image.fromarray(item.shape.astype(np.uint8) * 255).resize((sides[0], sides[1]))
    alpha = np.asarray(shape.rotate(degrees, Image.Resampling.BILINEAR, expand=True), dtype=float) / 255
    height, width = alpha.shape
    if height >= size or width >= size:
        return
    top, left = int(random.integers(0, size - height)), int(random.integers(0, size - width))
    window = slice(top, top + height), slice(left, left + width)
    if number and (numbers[window][alpha > 0.5] > 0).mean() > 0.3:  # items may touch, but not hide each other
        return
    pixels = np.asarray(image) * random.uniform(0.85, 1.15)
    canvas[window] = (canvas[window] * (1 - alpha[..., None]) + pixels * alpha[..., None]).clip(0, 255)
    numbers[window] = np.where(alpha > 0.5, number, numbers[window])


def _noise(random: Random, size: int, smooth: float) -> NDArray[np.float64]:
    field = gaussian_filter(random.normal(size=(size, size)), smooth, mode="wrap")
    scaled: NDArray[np.float64] = field / (np.abs(field).max() + 1e-9)
    return scaled
