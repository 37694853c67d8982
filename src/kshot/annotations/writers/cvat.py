"""Write CVAT for images 1.1: masks with scores, in one XML file."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from kshot.annotations.writers.base import Format
from kshot.io.overlays import label_colour
from kshot.results import Instance, SegmentationResult
from kshot.results.instances import row_run_lengths

SCORE = {"name": "score", "mutable": "False", "input_type": "text", "default_value": "", "values": ""}
"""The attribute of each label that holds the score, as CVAT describes attributes."""


def _entry(file_name: str, result: SegmentationResult, instances: Sequence[Instance]) -> dict[str, Any]:
    height, width = result.labels.shape
    image = {"name": _printable(file_name), "width": str(width), "height": str(height)}
    return {"image": image, "masks": [_mask(one) for one in instances]}


def _mask(instance: Instance) -> dict[str, Any]:
    left, top, right, bottom = instance.box
    width, height = right - left, bottom - top
    inside = Instance(instance.class_name, (0, 0, width, height), instance.area, 0, instance.mask)
    return {
        "label": instance.class_name,
        "source": "auto",
        "occluded": "0",
        "rle": ", ".join(map(str, row_run_lengths(inside, (height, width)))),
        "left": str(left),
        "top": str(top),
        "width": str(width),
        "height": str(height),
        "z_order": "0",
        "score": f"{instance.score:.4f}",
    }


def _content(entries: Iterable[Any], classes: Mapping[str, int]) -> bytes:
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(
        ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels"
    )
    for name, value in classes.items():
        _add_label(labels, name, value)
    for number, entry in enumerate(entries):
        image = ElementTree.SubElement(root, "image", {"id": str(number), **entry["image"]})
        for fields in entry["masks"]:
            shown = {name: text for name, text in fields.items() if name != "score"}
            mask = ElementTree.SubElement(image, "mask", shown)
            ElementTree.SubElement(mask, "attribute", {"name": "score"}).text = fields["score"]
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content


def _add_label(labels: ElementTree.Element, name: str, value: int) -> None:
    red, green, blue = label_colour(value)
    label = ElementTree.SubElement(labels, "label")
    ElementTree.SubElement(label, "name").text = name
    ElementTree.SubElement(label, "color").text = f"#{red:02x}{green:02x}{blue:02x}"
    ElementTree.SubElement(label, "type").text = "any"
    attribute = ElementTree.SubElement(ElementTree.SubElement(label, "attributes"), "attribute")
    for field, text in SCORE.items():
        ElementTree.SubElement(attribute, field).text = text


def _printable(name: str) -> str:
    """Return a file name with escapes for what XML cannot hold: control characters, undecodable bytes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name
    )


CVAT = Format(entry=_entry, run_files={"cvat.xml": _content})
