"""Images of all sizes, from one pixel to a GeoTIFF of 20,000 x 20,000."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.robustness.isolated import Crashed, memory, run_isolated
from benchmarks.robustness.rows import CannotRun, Outcome, Row
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


def random_sizes(folder: Path, count: int = 500) -> Outcome:
    """Segment images of random sizes, every fifth of them in tiles."""
    random, correct = np.random.default_rng(0), 0
    whole, tiled = (
        Segmenter.from_pretrained("prototype", image_size=65, tile=tile).fit(*scene()) for tile in (None, 256)
    )
    for index in range(count):
        size = _draw_size(random, index)
        image = Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
        found = (tiled if index % 5 == 0 else whole).predict(image)
        correct += found.mask.shape == size and bool(np.isfinite(found.probability).all())
    return Outcome(f"{correct} of {count} results have the size of their image", correct == count)


def large_map(folder: Path) -> Outcome:
    """Segment a GeoTIFF with the command and measure the peak memory."""
    try:
        import rasterio
    except ImportError as error:
        raise CannotRun("rasterio is not installed (pip install 'kshot[geo]')") from error
    image, mask = scene()
    image.save(folder / "support.png")
    Image.fromarray(mask).save(folder / "mask.png")
    profile = {"driver": "GTiff", "height": LARGE, "width": LARGE, "count": 3, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000)}
    with rasterio.open(folder / "map.tif", "w", tiled=True, SPARSE_OK=True, **profile) as written:
        disc = np.asarray(image).transpose(2, 0, 1)
        for place in range(0, LARGE - 120, 997):  # unwritten blocks are black and take no space
            written.write(disc, window=((place, place + 90), (place, place + 120)))
    try:
        status, peak = run_isolated(segment_map, folder)
    except Crashed as error:
        return Outcome(str(error), False)
    with rasterio.open(folder / "out" / "map_mask.tif") as result:
        height, width = result.shape
    figure = f"a mask of {height:,} x {width:,} pixels; {peak / 1000:.1f} GB at the peak"
    return Outcome(figure, status == 0 and (height, width) == (LARGE, LARGE) and peak <= MAX_MEMORY)


def segment_map(folder: Path) -> tuple[int, float]:
    """Segment the map; return the exit status of the command and the peak memory in MB."""
    warnings.simplefilter("ignore")
    support, mask, image, out = (str(folder / name) for name in ("support.png", "mask.png", "map.tif", "out"))
    status = 0
    try:
        kshot(["segment", "--support", support, mask, image, "--out", out, "--image-size", "65"])
    except SystemExit as exit:
        status = int(exit.code or 0)
    return status, memory()[1]


def large_image(folder: Path) -> Outcome:
    """Read a PNG of the same size, which would have to be decoded as a whole."""
    Image.new("1", (LARGE, LARGE)).save(folder / "image.png")
    try:
        read_image(folder / "image.png")
    except ImageError as error:
        lines = len(str(error).splitlines())
        figure = f"refused in {lines} line{'s' * (lines > 1)}: more than {MAX_PIXELS:,} pixels"
        return Outcome(figure, False)
    return Outcome("read; the memory for its mask is not measured", False)


def _draw_size(random: np.random.Generator, index: int) -> tuple[int, int]:
    """Draw (height, width) log-uniformly; the first three sizes are 1 x 1, 1 x N and N x 1."""
    height, width = np.exp(random.uniform(0, np.log(LONGEST), 2)).round().astype(int).tolist()
    return ((1, 1), (1, width), (height, 1))[index] if index < 3 else (height, width)


ROWS = (
    Row("sizes", "1 x 1, 1 x N, N x 1 and other sizes", "output size = input size for 500", random_sizes),
    Row("large-map", "20,000 x 20,000, as a GeoTIFF", "output size = input size; ≤ 2 GB", large_map),
    Row(
        "large-image",
        "20,000 x 20,000, as a PNG",
        "output size = input size; ≤ 2 GB",
        large_image,
    ),
)
