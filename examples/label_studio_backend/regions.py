"""Masks as Label Studio draws them."""

from dataclasses import replace

import numpy as np
from scipy.ndimage import binary_fill_holes

from kshot.annotations.components import components, outline

RUN_BITS = 16
"""Bits of a brush stroke's run length; kshot.annotations.brush says what rle-pack's bits are."""


def draw_polygons(mask, probability):
    """Outline each piece of a mask, without its holes: Label Studio's polygons have none."""
    percent = 100 / np.array(mask.shape[::-1])
    for piece in components(mask, probability):
        points = outline(replace(piece, mask=binary_fill_holes(piece.mask)))
        if points is not None:
            yield {"points": ((np.array(points) + 0.5) * percent).tolist(), "closed": True}, piece.score


def draw_brush(mask, probability):
    """Pack a mask as Label Studio's brush does: an RGBA picture in run lengths."""
    if mask.any():
        yield {"format": "rle", "rle": pack(mask)}, float(probability[mask].mean())


def pack(mask):
    """Write a mask (H, W) as rle-pack's list of bytes."""
    values = np.repeat(mask.ravel(), 4)
    starts = np.flatnonzero(np.diff(values.astype(np.int8), prepend=-1))
    bits = [f"{values.size:032b}{7:05b}", f"{RUN_BITS - 1:04b}" * 4]
    for start, length in zip(starts, np.diff(starts, append=values.size), strict=True):
        for done in range(0, length, 2**RUN_BITS):
            count = min(length - done, 2**RUN_BITS)
            bits.append(f"100{count - 1:0{RUN_BITS}b}{255 * int(values[start]):08b}")
    joined = "".join(bits)
    return [int(joined[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(joined), 8)]


DRAW = {"brushlabels": draw_brush, "polygonlabels": draw_polygons}
