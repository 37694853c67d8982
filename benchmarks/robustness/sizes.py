"""Photographs of all sizes, down to one pixel, and a map of 20,000 x 20,000."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.robustness.isolated import Crashed, alone, memory
from benchmarks.robustness.rows import CannotRun, Found, Row
from benchmarks.robustness.samples import scene
from kshot.cli.main import main as kshot
from kshot.errors import ImageError
from kshot.io.image_files import MAX_PIXELS
from kshot.io.images import read_image
from kshot.segmenter import Segmenter

LONGEST = 1500
LARGE = 20_000
MAX_MEMORY = 2000
"""In MB."""


def drawn_sizes(folder: Path, count: int = 500) -> Found:
    """Segment photographs of drawn sizes, every fifth of them in tiles."""
    random, right = np.random.default_rng(0), 0
    whole, tiled = (
        Segmenter.from_pretrained("prototype", image_size=65, tile=tile).fit(*scene()) for tile in (None, 256)
    )
    for index in range(count):
        size = _draw_size(random, index)
        picture = Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        found = (tiled if index % 5 == 0 else whole).explain(picture)
        right += found.mask.shape == found.fused.shape == size and bool(np.isfinite(found.fused).all())
    return Found(f"{right} of {count} answers have their photograph's size", right == count)


def large_map(folder: Path) -> Found:
    """Segment a GeoTIFF with the command, and watch the memory."""
    try:
        import rasterio
    except ImportError as error:
        raise CannotRun("rasterio is not installed (pip install 'kshot[geo]')") from error
    picture, mask = scene()
    picture.save(folder / "support.png")
    Image.fromarray(mask).save(folder / "mask.png")
    profile = {"driver": "GTiff", "height": LARGE, "width": LARGE, "count": 3, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)}
    with rasterio.open(folder / "map.tif", "w", tiled=True, SPARSE_OK=True, **profile) as written:
        disc = np.asarray(picture).transpose(2, 0, 1)
        for place in range(0, LARGE - 120, 997):  # what is not written is black, and takes no room
            written.write(disc, window=((place, place + 90), (place, place + 120)))
    try:
        status, peak = alone(segment_map, folder)
    except Crashed as error:
        return Found(str(error), False)
    with rasterio.open(folder / "out" / "map_mask.tif") as answer:
        height, width = answer.shape
    figure = f"a mask of {height:,} x {width:,} pixels; {peak / 1000:.1f} GB at the peak"
    return Found(figure, status == 0 and (height, width) == (LARGE, LARGE) and peak <= MAX_MEMORY)


def segment_map(folder: Path) -> tuple[int, float]:
    """Segment the map; give the command's exit status, and the peak of the memory in MB."""
    warnings.simplefilter("ignore")
    support, mask, image, out = (str(folder / name) for name in ("support.png", "mask.png", "map.tif", "out"))
    status = 0
    try:
        kshot(["segment", "--support", support, mask, image, "--out", out, "--image-size", "65"])
    except SystemExit as exit:
        status = int(exit.code or 0)
    return status, memory()[1]


def large_photograph(folder: Path) -> Found:
    """Read a photograph of as many pixels. It would have to be decoded whole, and is too large for that."""
    Image.new("1", (LARGE, LARGE)).save(folder / "photograph.png")
    try:
        read_image(folder / "photograph.png")
    except ImageError as error:
        lines = len(str(error).splitlines())
        return Found(f"refused in {lines} line{'s' * (lines > 1)}, as more than {MAX_PIXELS:,} pixels", False)
    return Found("read; how much memory its answer takes is not measured", False)


def _draw_size(random: np.random.Generator, index: int) -> tuple[int, int]:
    """Draw (height, width): the first ones are 1 x 1, 1 x N and N x 1, small sizes as often as large ones."""
    height, width = np.exp(random.uniform(0, np.log(LONGEST), 2)).round().astype(int).tolist()
    return ((1, 1), (1, width), (height, 1))[index] if index < 3 else (height, width)


ROWS = (
    Row("sizes", "1 x 1, 1 x N, N x 1 and other sizes", "output size = input size for 500", drawn_sizes),
    Row("large-map", "20,000 x 20,000, as a GeoTIFF", "output size = input size; ≤ 2 GB", large_map),
    Row(
        "large-photograph",
        "20,000 x 20,000, as a photograph",
        "output size = input size; ≤ 2 GB",
        large_photograph,
    ),
)
