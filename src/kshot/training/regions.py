"""Regions that two photographs share, as classes that nobody named.

A dozen base classes teach a network what objects look like more than to do what the mask says: labelled eyes
become whole faces. So some episodes ask for another thing in the same two photographs: a cluster of positions
that are alike to the backbone, say grass, fur, wheels or sky.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

NUM_CLUSTERS = (3, 8)
"""Fewest and most; the more, the smaller regions are."""

AREA = (0.01, 0.5)
"""Part of a photograph that a region covers, at least and at most, in both."""

STEPS = 10


def find_region(features: Tensor, size: int, random: np.random.Generator) -> Tensor | None:
    """Draw a region by spherical k-means over all positions of photographs' features (N, C, h, w).

    Returns its masks (N, size, size), uint8 of 0 and 1; None if no cluster of the draw is in all of them.
    """
    features = _without_border(features)
    features = F.normalize(features - features.mean(dim=(0, 2, 3), keepdim=True), dim=1)
    points = features.movedim(1, -1).flatten(0, 2)
    number = min(int(random.integers(NUM_CLUSTERS[0], NUM_CLUSTERS[1] + 1)), len(points))
    centres = points[random.choice(len(points), number, replace=False)]
    for _ in range(STEPS):
        nearest = F.one_hot((points @ centres.T).argmax(dim=1), number).float()
        centres = F.normalize(nearest.T @ points + 1e-6 * centres, dim=1)
    alike = torch.einsum("bchw,kc->bkhw", features, centres)
    alike = F.interpolate(alike, (size, size), mode="bilinear", align_corners=True)
    labels = alike.argmax(dim=1)
    area = F.one_hot(labels, number).float().mean(dim=(1, 2))
    fits = ((area >= AREA[0]) & (area <= AREA[1])).all(dim=0).nonzero()[:, 0].tolist()
    if not fits:
        return None
    return (labels == int(random.choice(fits))).to(torch.uint8)


def _without_border(features: Tensor) -> Tensor:
    """Put what is beside them in the place of the outermost positions, where padding shows most."""
    return F.pad(features[..., 1:-1, 1:-1], (1, 1, 1, 1), mode="replicate")
