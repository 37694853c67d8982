"""What annotation tools draw -> masks: polygons, boxes, ellipses and run lengths."""

from typing import Any

from kshot.errors import KshotError


def coco_masks() -> Any:
    """Give pycocotools' masks. Raises KshotError if it is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise KshotError("COCO's outlines need pycocotools: pip install 'kshot[formats]'.") from error
    return mask
