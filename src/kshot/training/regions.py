"""Regions of an image, found without labels: what a person might label that no data set names.

Felzenszwalb & Huttenlocher 2004 cut an image into superpixels (by scikit-image). A region is one of them, or
it and its neighbours that look alike (an object or a part), or all that look alike anywhere in the image (a
texture, or stuff such as sky).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb

from kshot.types import GroundTruth

LONG_SIDE = 192
"""Pixels of the longer side at which images are cut: details below that are nobody's region."""

SCALES = (50.0, 150.0, 400.0)
"""Felzenszwalb's scale: larger ones give larger superpixels."""

SHARES = (0.008, 0.6)
"""Smallest and largest share of the image that a region covers."""

LIKE = (6.0, 22.0)
"""Range of the distance (CIELAB, with the local contrast) up to which superpixels count as alike."""


class Superpixels(NamedTuple):
    """An image's superpixels at one scale.

    labels: (h, w) numbers from 0. looks: (n, 4) mean colour in CIELAB and local contrast of each.
    borders: (m, 2) pairs of neighbours. sizes: (n,) shares of the image.
    """

    labels: NDArray[np.int64]
    looks: NDArray[np.float64]
    borders: NDArray[np.int64]
    sizes: NDArray[np.float64]


def find_superpixels(image: Image.Image, scale: float) -> Superpixels:
    """Cut an RGB image into superpixels."""
    factor = min(1.0, LONG_SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    pixels = np.asarray(small)
    labels = felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=30).astype(np.int64)
    lab = rgb2lab(pixels)
    contrast = np.abs(np.gradient(lab[..., 0])).sum(axis=0)
    counts = np.bincount(labels.ravel()).astype(float)
    looks = np.stack(
        [np.bincount(labels.ravel(), one.ravel()) / counts for one in (*np.moveaxis(lab, -1, 0), contrast)],
        axis=1,
    )
    pairs = [
        np.stack([a.ravel(), b.ravel()], axis=1)
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
    ]
    both = np.concatenate(pairs)
    borders = np.unique(np.sort(both[both[:, 0] != both[:, 1]], axis=1), axis=0)
    return Superpixels(labels, looks, borders.reshape(-1, 2), counts / labels.size)


def draw_region(
    found: Superpixels, random: np.random.Generator, inside: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_] | None:
    """Draw a region (h, w) at the superpixels' size, or None if no size fits.

    inside: only superpixels that lie in this mask (h, w), for parts of an object.
    """
    usable = found.sizes > SHARES[0] / 4
    if inside is not None:
        covered = np.bincount(found.labels.ravel(), inside.ravel()) / np.bincount(found.labels.ravel())
        usable &= covered > 0.8
    candidates = np.flatnonzero(usable)
    if not len(candidates):
        return None
    # Between one vote a superpixel (small ones win) and one a pixel (the background wins).
    weights = np.sqrt(found.sizes[candidates])
    seed = int(random.choice(candidates, p=weights / weights.sum()))
    alike = np.linalg.norm(found.looks - found.looks[seed], axis=1) < random.uniform(*LIKE)
    kind = random.random()
    if kind < 0.2:
        chosen = np.arange(len(alike)) == seed
    elif kind < 0.6:
        chosen = _connected(found.borders, alike, seed)
    else:
        chosen = alike
    region = chosen[found.labels]
    if inside is not None:
        region &= inside
    share = region.mean()
    return region if SHARES[0] <= share <= SHARES[1] else None


def enlarge(region: NDArray[np.bool_], size: tuple[int, int]) -> GroundTruth:
    """Bring a region to an image's size (height, width): 1 in it, 0 elsewhere."""
    large = Image.fromarray(region).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(large).astype(np.uint8)


def _connected(borders: NDArray[np.int64], alike: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Find the superpixels that are alike and connected to the seed by such."""
    chosen = np.zeros(len(alike), dtype=bool)
    chosen[seed] = True
    usable = borders[alike[borders].all(axis=1)]
    while True:
        reached = chosen[usable]
        new = usable[reached.any(axis=1) & ~reached.all(axis=1)].ravel()
        if not len(new):
            return chosen
        chosen[new] = True
