"""Convert instances to Label Studio regions."""

import numpy as np

from kshot.annotations.brush import encode_brush
from kshot.results.instances import row_run_lengths


def to_polygon(instance, size):
    """Return the outline of an instance in percent; holes are filled, as polygons have none."""
    outline = instance.rings[0]
    if len(outline) < 3:
        return None
    percent = 100 / np.array(size[::-1])
    return {"points": ((np.array(outline) + 0.5) * percent).tolist(), "closed": True}


def to_brush(instance, size):
    """Return an instance as a brush stroke: a run-length encoded RGBA image."""
    return {"format": "rle", "rle": encode_brush(row_run_lengths(instance, size))}


TO_REGION = {"brushlabels": to_brush, "polygonlabels": to_polygon}
