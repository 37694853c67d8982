"""Write results in the formats of annotation tools; `formats.FORMATS` lists them."""

from kshot.annotations.writers.coco import coco_document
from kshot.annotations.writers.labelme import labelme_document

__all__ = ["coco_document", "labelme_document"]
