"""What a segmenter found in an image, and its instances."""

from kshot.results.instances import Instance
from kshot.results.segmentation import MAX_CLASSES, OBJECT, SegmentationResult, choose_label_values

__all__ = ["MAX_CLASSES", "OBJECT", "Instance", "SegmentationResult", "choose_label_values"]
