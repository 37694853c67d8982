"""Write LabelMe files: polygons, and masks of what has holes."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from kshot.annotations.writers.base import Format
from kshot.io.files import encode_image
from kshot.results import Instance, SegmentationResult

LABELME_VERSION = "5.5.0"
"""Version of the written format; LabelMe has read mask shapes since 5.3."""


def labelme_document(
    image_path: str, result: SegmentationResult, instances: Sequence[Instance] | None = None
) -> dict[str, Any]:
    """Return a result as a LabelMe document: a polygon for each instance, or a mask if it has holes.

    image_path: relative to the folder of the document. instances: of the result, if they are known already.
    """
    height, width = result.labels.shape
    found = result.instances() if instances is None else instances
    return {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": [_shape(one) for one in found],
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _shape(instance: Instance) -> dict[str, Any]:
    polygon = instance.polygon
    left, top, right, bottom = instance.box
    corners = [(left, top), (right - 1, bottom - 1)]
    return {
        "label": instance.class_name,
        "points": [[float(x), float(y)] for x, y in polygon or corners],
        "group_id": None,
        "description": "",
        "shape_type": "polygon" if polygon else "mask",
        "flags": {},
        "mask": None if polygon else _png(instance),
    }


def _png(instance: Instance) -> str:
    image = Image.fromarray(instance.mask.astype(np.uint8))
    return base64.b64encode(encode_image(image, "PNG")).decode("ascii")


def _content(image_path: str, result: SegmentationResult, instances: Sequence[Instance]) -> bytes:
    return json.dumps(labelme_document(image_path, result, instances)).encode()


LABELME = Format(image_files={"{name}.json": _content})
