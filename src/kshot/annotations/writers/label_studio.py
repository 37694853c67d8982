"""Write Label Studio's JSON: a task for each image, with brush strokes as annotations."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from kshot.annotations.brush import encode_brush
from kshot.annotations.writers.base import Format
from kshot.results import Instance, SegmentationResult
from kshot.results.instances import row_run_lengths

LOCAL_FILES = "/data/local-files/?d="
"""Start of the addresses of Label Studio's local storage, to which the images' folder must be added."""

IMAGE, LABEL = "image", "label"
"""Names of the image and the brush in the labelling configuration."""


def _entry(file_name: str, result: SegmentationResult, instances: Sequence[Instance]) -> dict[str, Any]:
    regions = [_region(one, result.labels.shape) for one in instances]
    return {
        "data": {IMAGE: LOCAL_FILES + quote(file_name, errors="surrogateescape")},
        "annotations": [{"result": regions, "was_cancelled": False, "ground_truth": False}],
    }


def _region(instance: Instance, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": str(instance.id),
        "from_name": LABEL,
        "to_name": IMAGE,
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": size[1],
        "original_height": size[0],
        "image_rotation": 0,
        "score": round(instance.score, 4),
        "value": {
            "format": "rle",
            "rle": encode_brush(row_run_lengths(instance, size)),
            "brushlabels": [instance.class_name],
        },
    }


def _content(entries: Iterable[Any], _: Mapping[str, int]) -> bytes:
    tasks = [{"id": number, **entry} for number, entry in enumerate(entries, 1)]
    return json.dumps(tasks).encode()


def _config(classes: Mapping[str, int]) -> bytes:
    """Return the labelling configuration that a project for these tasks needs."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": IMAGE, "value": f"${IMAGE}"})
    brush = ElementTree.SubElement(view, "BrushLabels", {"name": LABEL, "toName": IMAGE})
    for name in classes:
        ElementTree.SubElement(brush, "Label", {"value": name})
    content: bytes = ElementTree.tostring(view, encoding="utf-8")
    return content


LABEL_STUDIO = Format(
    entry=_entry,
    run_files={"label_studio.json": _content},
    class_files={"label_studio_config.xml": _config},
)
