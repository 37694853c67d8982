"""Write YOLO's labels for segmentation: one line of text for each instance.

A line is the class's number, from 0, and the polygon's points x y in parts of the width and height. A polygon
is one line, so holes are joined to the outline by cuts, which cover no area.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.annotations.writers.base import Format
from kshot.results import Instance, SegmentationResult
from kshot.results.instances import Ring, skimage

MIN_POINTS = 3
"""Points that YOLO's readers need."""


def _label_lines(_: str, result: SegmentationResult, instances: Sequence[Instance]) -> bytes:
    height, width = result.labels.shape
    numbers = {name: number for number, name in enumerate(result.class_names)}
    lines = []
    for one in instances:
        points = join_rings(one.rings)
        while len(points) < MIN_POINTS:
            points.append(points[0])
        # Points are the centres of pixels; half a pixel less would be the edges on two sides only.
        values = (f"{(x + 0.5) / width:.6f} {(y + 0.5) / height:.6f}" for x, y in points)
        lines.append(f"{numbers[one.class_name]} {' '.join(values)}\n")
    return "".join(lines).encode()


def join_rings(rings: Sequence[Ring]) -> Ring:
    """Return an outline and its holes as one ring, with a cut from each hole to the nearest point.

    The nearest hole comes first, so that no cut crosses another hole.
    """
    joined = list(rings[0])
    holes = [ring for ring in rings[1:] if len(ring) >= MIN_POINTS]
    if not holes:
        return joined
    search = skimage("scipy.spatial").KDTree
    points = np.concatenate(holes)
    owner = np.repeat(np.arange(len(holes)), [len(ring) for ring in holes])
    distance, nearest = np.full(len(points), np.inf), np.zeros_like(points)
    added = np.array(joined)
    for _ in holes:
        found, index = search(added).query(points)
        is_nearer = found < distance
        distance[is_nearer], nearest[is_nearer] = found[is_nearer], added[index[is_nearer]]
        start = int(distance.argmin())
        hole = holes[owner[start]]
        here = joined.index(_point(nearest[start]))
        there = hole.index(_point(points[start]))
        joined[here + 1 : here + 1] = [*hole[there:], *hole[: there + 1], joined[here]]
        added, is_left = np.array(hole), owner != owner[start]
        points, owner, distance, nearest = (values[is_left] for values in (points, owner, distance, nearest))
    return joined


def _point(place: NDArray[np.integer[Any]]) -> tuple[int, int]:
    return int(place[0]), int(place[1])


def _data_yaml(classes: Mapping[str, int]) -> bytes:
    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(classes))
    return f"path: .\ntrain: images\nval: images\nnames:\n{names}".encode()


YOLO = Format(image_files={"labels/{name}.txt": _label_lines}, class_files={"data.yaml": _data_yaml})
