"""Image modes: EXIF orientation, 16 bits, alpha, CMYK, palettes, animations."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.robustness.rows import Outcome, Row
from benchmarks.robustness.samples import cat_image, scene
from kshot.io.images import read_image
from kshot.segmenter import Segmenter

ORIENTATION = 0x0112
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Transpose that stores an upright image with each EXIF orientation."""

LOSSLESS: dict[str, dict[str, Any]] = {"png": {}, "tif": {}, "webp": {"lossless": True, "exact": True}}


def orientations(folder: Path) -> Outcome:
    """Segment one image, stored with each orientation in each format."""
    image, mask = scene()
    segmenter = Segmenter.from_pretrained("prototype", image_size=97).fit(image, mask)
    upright, _ = scene(left=60, top=35)
    expected, num_equal = segmenter.predict(upright).mask, 0
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored = upright.transpose(UNDO[orientation]) if orientation in UNDO else upright
        masks = []
        for kind, options in LOSSLESS.items():
            stored.save(folder / f"turned.{kind}", exif=exif, **options)
            masks.append(segmenter.predict(folder / f"turned.{kind}").mask)
        num_equal += all(np.array_equal(mask, expected) for mask in masks)
    is_met = num_equal == 8 and bool(0 < expected.mean() < 1)
    return Outcome(f"{num_equal}/8 give the same mask, as PNG, TIFF and WebP", is_met)


def grey_levels(folder: Path) -> Outcome:
    """Count the grey levels that remain of a ramp of more than 8 bits in each mode."""
    ramp = np.linspace(3_000, 40_000, 4096).reshape(64, 64)
    colours = np.stack([ramp, ramp / 2, ramp], axis=-1).astype(np.uint16)
    paths = {kind: folder / f"{kind}.tif" for kind in ("F", "I", "RGB with 16 bits")} | {
        kind: folder / f"{kind}.png" for kind in ("I;16", "I;16 with 12 bits")
    }
    Image.fromarray(ramp.astype(np.float32)).save(paths["F"])
    Image.fromarray(ramp.astype(np.int32)).save(paths["I"])
    tifffile.imwrite(paths["RGB with 16 bits"], colours, photometric="rgb")
    Image.fromarray(ramp.astype(np.uint16)).save(paths["I;16"])
    Image.fromarray((ramp / 10).astype(np.uint16)).save(paths["I;16 with 12 bits"])
    levels = {kind: len(np.unique(np.asarray(read_image(path))[..., 0])) for kind, path in paths.items()}
    fewest = min(levels, key=levels.__getitem__)
    return Outcome(f"{len(levels)} modes keep {levels[fewest]} or more", levels[fewest] >= 200)


def hidden_pixels(folder: Path) -> Outcome:
    """Read pairs of files that differ only in fully transparent pixels."""
    visible = np.asarray(cat_image(40, 30))
    alpha = np.zeros((30, 40), np.uint8)
    alpha[5:20, 5:30] = 255
    pairs = {
        "rgba.png": [_with_alpha(visible, alpha, colour) for colour in (0, 200)],
        "rgba.webp": [_with_alpha(visible, alpha, colour) for colour in (0, 200)],
        "rgba.tif": [_with_alpha(visible, alpha, colour) for colour in (0, 200)],
        "la.png": [_with_alpha(visible, alpha, colour).convert("LA") for colour in (0, 200)],
        "palette.png": [_with_hidden_colour(alpha, colour) for colour in (0, 200)],
        "palette.gif": [_with_hidden_colour(alpha, colour) for colour in (0, 200)],
    }
    shown = [name for name, pair in pairs.items() if not _are_read_equal(pair, folder / name, alpha == 0)]
    figure = f"visible in {len(shown)} of {len(pairs)} formats"
    return Outcome(f"{figure}: {', '.join(shown)}" if shown else figure, not shown)


def colours(folder: Path) -> Outcome:
    """Compare the colours of 1-bit, grey, palette and CMYK images with the stored values."""
    image = cat_image(40, 30)
    grey = np.asarray(image.convert("L"))
    indices, palette = grey // 32, np.random.default_rng(0).integers(0, 256, (8, 3), dtype=np.uint8)
    with_palette = Image.fromarray(indices)
    with_palette.putpalette(palette.ravel().tolist())
    ink = np.random.default_rng(1).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    paper = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
    cases: dict[str, tuple[Image.Image, NDArray[Any]]] = {
        "1.png": (Image.fromarray(grey > 128), np.stack([(grey > 128) * 255] * 3, axis=-1)),
        "L.png": (Image.fromarray(grey), np.stack([grey] * 3, axis=-1)),
        "P.png": (with_palette, palette[indices]),
        "CMYK.tif": (Image.fromarray(ink, "CMYK"), paper),
    }
    largest = 0.0
    for name, (stored, expected) in cases.items():
        stored.save(folder / name)
        found = np.asarray(read_image(folder / name)).astype(float)
        largest = max(largest, float(np.abs(found - expected).max()))
    return Outcome(f"{len(cases)} modes, off by {largest:.1f} of 255 levels at most", largest <= 1)


def animations(folder: Path) -> Outcome:
    """Read files with several frames."""
    first, second = cat_image(40, 30).quantize(64).convert("RGB"), Image.new("RGB", (40, 30), "blue")
    options: dict[str, dict[str, Any]] = {"gif": {}, "tif": {}, "png": {}, "webp": LOSSLESS["webp"]}
    done = 0
    for kind, given in options.items():
        path = folder / f"several.{kind}"
        first.save(path, save_all=True, append_images=[second], **given)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = np.asarray(read_image(path)).astype(int)
        has_warned = any(
            path.name in str(one.message) and "the first is read" in str(one.message) for one in caught
        )
        done += has_warned and bool(np.abs(found - np.asarray(first)).max() <= 1)
    return Outcome(
        f"{done}/{len(options)}: first frame, and a warning that names the file", done == len(options)
    )


def _with_alpha(visible: NDArray[np.uint8], alpha: NDArray[np.uint8], hidden: int) -> Image.Image:
    colours = np.where(alpha[..., None] > 0, visible, np.uint8(hidden))
    return Image.fromarray(np.dstack([colours, alpha]))


def _with_hidden_colour(alpha: NDArray[np.uint8], hidden: int) -> Image.Image:
    """Return a palette image whose index 0 is transparent."""
    image = Image.fromarray((alpha > 0).astype(np.uint8))
    image.putpalette([hidden, hidden, hidden, 90, 60, 30])
    image.info["transparency"] = 0
    return image


def _are_read_equal(pair: list[Image.Image], path: Path, hidden: NDArray[np.bool_]) -> bool:
    """Return whether two different files are read as equal images, white where they are transparent."""
    options = LOSSLESS.get(path.suffix.removeprefix("."), {})
    contents, images = [], []
    for one in pair:
        one.save(path, **options)
        contents.append(path.read_bytes())
        images.append(np.asarray(read_image(path)))
    is_white = bool((images[0][hidden] == 255).all())
    return contents[0] != contents[1] and is_white and np.array_equal(*images)


ROWS = (
    Row("exif", "EXIF orientations 1 to 8", "8/8 give the same mask", orientations),
    Row(
        "levels",
        "grey levels of 16-bit, 32-bit and float images",
        "200 grey levels kept",
        grey_levels,
    ),
    Row("alpha", "fully transparent pixels", "never visible", hidden_pixels),
    Row("colours", "1-bit, grey, palette and CMYK", "correct colours", colours),
    Row("animated", "animated and multi-page files", "first frame and a warning", animations),
)
