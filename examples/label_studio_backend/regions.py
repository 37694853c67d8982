"""Convert masks to Label Studio regions."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import binary_fill_holes

from kshot.annotations.components import connected_components, outline

RUN_BITS = 16
"""Bits of a run length; kshot.annotations.brush describes the format."""


def to_polygons(mask, probability):
    """Yield a polygon and a score for each component of a mask; holes are filled, as polygons have none."""
    percent = 100 / np.array(mask.shape[::-1])
    for component in connected_components(mask, probability):
        points = outline(replace(component, mask=binary_fill_holes(component.mask)))
        if points is not None:
            yield {"points": ((np.array(points) + 0.5) * percent).tolist(), "closed": True}, component.score


def to_brush(mask, probability):
    """Yield a brush stroke and its score: a run-length encoded RGBA image."""
    if mask.any():
        yield {"format": "rle", "rle": pack(mask)}, float(probability[mask].mean())


def pack(mask):
    """Encode a mask (H, W) as a list of bytes in the rle-pack format."""
    values = np.repeat(mask.ravel(), 4)
    starts = np.flatnonzero(np.diff(values.astype(np.int8), prepend=-1))
    bits = [f"{values.size:032b}{7:05b}", f"{RUN_BITS - 1:04b}" * 4]
    for start, length in zip(starts, np.diff(starts, append=values.size), strict=True):
        for done in range(0, length, 2**RUN_BITS):
            count = min(length - done, 2**RUN_BITS)
            bits.append(f"100{count - 1:0{RUN_BITS}b}{255 * int(values[start]):08b}")
    joined = "".join(bits)
    return [int(joined[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(joined), 8)]


TO_REGIONS = {"brushlabels": to_brush, "polygonlabels": to_polygons}
