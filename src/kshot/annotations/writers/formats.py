"""All formats that results are written in, by the names of `kshot segment --also`."""

from collections.abc import Mapping

from kshot.annotations.writers.base import Format, MapFormat
from kshot.annotations.writers.coco import COCO
from kshot.annotations.writers.cvat import CVAT
from kshot.annotations.writers.label_studio import LABEL_STUDIO
from kshot.annotations.writers.labelme import LABELME
from kshot.annotations.writers.maps import GEOJSON, GEOPACKAGE
from kshot.annotations.writers.voc import VOC
from kshot.annotations.writers.yolo import YOLO

FORMATS: Mapping[str, Format] = {
    "coco": COCO,
    "labelme": LABELME,
    "yolo": YOLO,
    "cvat": CVAT,
    "label-studio": LABEL_STUDIO,
    "voc": VOC,
}
"""Formats for ordinary images."""

MAP_FORMATS: Mapping[str, MapFormat] = {"geojson": GEOJSON, "gpkg": GEOPACKAGE}
"""Formats for GeoTIFFs."""
