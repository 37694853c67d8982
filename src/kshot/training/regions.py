"""Regions of an image, found without labels: targets that a person might label and no data set names.

An image is divided into superpixels (Felzenszwalb & Huttenlocher 2004, by scikit-image). A region is one
superpixel, or one with its connected similar ones (an object or a part), or all similar ones in the image (a
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
"""Longer side in pixels at which images are divided: smaller details are no region."""

SCALES = (50.0, 150.0, 400.0)
"""Felzenszwalb's scale: larger ones give larger superpixels."""

SHARES = (0.008, 0.6)
"""Smallest and largest share of the image that a region covers."""

MAX_DISTANCES = (6.0, 22.0)
"""Range of the largest distance (CIELAB and local contrast) at which superpixels count as similar."""


class Superpixels(NamedTuple):
    """An image's superpixels at one scale.

    labels: (h, w) numbers from 0. features: (n, 4) mean color in CIELAB and local contrast.
    borders: (m, 2) pairs of neighbors. sizes: (n,) shares of the image.
    """

    labels: NDArray[np.int64]
    features: NDArray[np.float64]
    borders: NDArray[np.int64]
    sizes: NDArray[np.float64]


def find_superpixels(image: Image.Image, scale: float) -> Superpixels:
    """Divide an RGB image into superpixels."""
    factor = min(1.0, LONG_SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
    pixels = np.asarray(small)
    labels = felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=30).astype(np.int64)
    lab = rgb2lab(pixels)
    contrast = np.abs(np.gradient(lab[..., 0])).sum(axis=0)
    counts = np.bincount(labels.ravel()).astype(float)
    features = np.stack(
        [np.bincount(labels.ravel(), one.ravel()) / counts for one in (*np.moveaxis(lab, -1, 0), contrast)],
        axis=1,
    )
    pairs = [
        np.stack([a.ravel(), b.ravel()], axis=1)
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
    ]
    both = np.concatenate(pairs)
    borders = np.unique(np.sort(both[both[:, 0] != both[:, 1]], axis=1), axis=0)
    return Superpixels(labels, features, borders.reshape(-1, 2), counts / labels.size)


def draw_region(
    found: Superpixels, random: np.random.Generator, inside: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_] | None:
    """Draw a region (h, w) at the superpixels' size; None if its share of the image is out of range.

    inside: use only superpixels in this mask (h, w), for parts of an object.
    """
    usable = found.sizes > SHARES[0] / 4
    if inside is not None:
        covered = np.bincount(found.labels.ravel(), inside.ravel()) / np.bincount(found.labels.ravel())
        usable &= covered > 0.8
    candidates = np.flatnonzero(usable)
    if not len(candidates):
        return None
    # By the root of the size: equal weights would favor small superpixels, weights by size the background.
    weights = np.sqrt(found.sizes[candidates])
    seed = int(random.choice(candidates, p=weights / weights.sum()))
    distances = np.linalg.norm(found.features - found.features[seed], axis=1)
    similar = distances < random.uniform(*MAX_DISTANCES)
    kind = random.random()
    if kind < 0.2:
        chosen = np.arange(len(similar)) == seed
    elif kind < 0.6:
        chosen = _connected(found.borders, similar, seed)
    else:
        chosen = similar
    region = chosen[found.labels]
    if inside is not None:
        region &= inside
    share = region.mean()
    return region if SHARES[0] <= share <= SHARES[1] else None


def enlarge(region: NDArray[np.bool_], size: tuple[int, int]) -> GroundTruth:
    """Return a region as a mask in an image's size (height, width): 1 inside, 0 elsewhere."""
    large = Image.fromarray(region).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(large).astype(np.uint8)


def _connected(borders: NDArray[np.int64], similar: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """Return the similar superpixels that are connected to the seed through similar ones."""
    chosen = np.zeros(len(similar), dtype=bool)
    chosen[seed] = True
    usable = borders[similar[borders].all(axis=1)]
    while True:
        reached = chosen[usable]
        new = usable[reached.any(axis=1) & ~reached.all(axis=1)].ravel()
        if not len(new):
            return chosen
        chosen[new] = True
