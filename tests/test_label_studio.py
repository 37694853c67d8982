import copy
import json

import numpy as np
import pytest
from make_annotations import HEIGHT, WIDTH, label_studio_content
from make_data import two_things

from kshot.annotations.reader import read_annotations
from kshot.errors import DataError, MaskError


def write(tmp_path, content):
    (tmp_path / "export.json").write_text(json.dumps(content))
    return tmp_path / "export.json"


def with_region(kind, value, **fields):
    """Return a task whose one region is of a kind."""
    (task, _) = copy.deepcopy(label_studio_content())
    region = task["annotations"][0]["result"][1]
    task["annotations"] = [{"result": [region | {"type": kind, "value": value | {kind: ["a"]}} | fields]}]
    return [task]


def draw(tmp_path, content):
    two_things()[0].save(tmp_path / "table.png")
    return read_annotations(write(tmp_path, content)).images[0].read()[1]


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/0123abcd-table.png",
        "/data/local-files/?d=photos/of%20mine/table.png",
        "https://example.com/photos/table.png?width=3",
        "s3://bucket/photos/table.png",
        "http://localhost:8080/data/upload/3/0123abcd-table.png",
        "table.png",
    ],
)
def test_images_are_found_by_their_addresses(tmp_path, address):
    content = label_studio_content()[:1]
    content[0]["data"]["image"] = address
    assert set(draw(tmp_path, content)) == {"disc", "square"}


def test_regions_are_in_percent_and_turn_around_their_corner(tmp_path):
    x, y = 100 / WIDTH, 100 / HEIGHT
    points = [[10 * x, 20 * y], [30 * x, 20 * y], [30 * x, 40 * y], [10 * x, 40 * y]]
    wanted = np.zeros((HEIGHT, WIDTH), dtype=bool)
    wanted[20:40, 10:30] = True
    np.testing.assert_array_equal(
        draw(tmp_path, with_region("polygonlabels", {"points": points}))["a"], wanted
    )
    value = {"x": 60 * x, "y": 20 * y, "width": 40 * x, "height": 10 * y, "rotation": 90}
    ys, xs = np.nonzero(draw(tmp_path, with_region("rectanglelabels", value))["a"])
    np.testing.assert_allclose((xs.min(), xs.max() + 1, ys.min(), ys.max() + 1), (50, 60, 20, 60), atol=1)
    value = {"x": 90 * x, "y": 45 * y, "radiusX": 30 * x, "radiusY": 5 * y, "rotation": 90}
    ys, xs = np.nonzero(draw(tmp_path, with_region("ellipselabels", value))["a"])
    np.testing.assert_allclose((xs.min(), xs.max() + 1, ys.min(), ys.max() + 1), (85, 95, 15, 75), atol=1)


def test_a_region_of_two_labels_shows_both_and_a_task_of_none_shows_nothing(tmp_path):
    value = {"x": 10, "y": 10, "width": 10, "height": 10, "rectanglelabels": ["a", "b"]}
    content = with_region("rectanglelabels", value)
    content[0]["annotations"][0]["result"][0]["value"]["rectanglelabels"] = ["a", "b"]
    assert set(draw(tmp_path, content)) == {"a", "b"}
    content[0]["annotations"][0]["was_cancelled"] = True
    with pytest.raises(DataError, match="annotates nothing"):
        draw(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_region("polygonlabels", {"points": [1, 2]}), r"is damaged: points\.0"),
        (with_region("rectanglelabels", {"x": 1e9}), "nowhere near"),
        (
            with_region("rectanglelabels", {"x": 1}, image_rotation=90),
            "rotated in Label Studio, by 90 degrees",
        ),
        (with_region("brushlabels", {"rle": [1]}), "no packed bytes"),
    ],
)
def test_regions_that_cannot_be_drawn_are_named(tmp_path, content, reason):
    with pytest.raises(MaskError, match=f"'0123abcd-table.png', class 'a': .*{reason}"):
        draw(tmp_path, content)


def test_files_that_are_no_export_are_named(tmp_path):
    task = label_studio_content()[0]
    for content, reason in (
        ([{"data": {}}], r"task 1: annotations: Field required\). Export 'JSON', not 'JSON-MIN'"),
        ([task, {"data": 3, "annotations": []}], "task 2: data"),
        ([task | {"data": {"text": "no image"}}], "task 1 names 0 images"),
        ([task | {"data": {"a": "a.png", "b": "b.png"}}], "task 1 names 2 images"),
    ):
        with pytest.raises(DataError, match=reason):
            read_annotations(write(tmp_path, content))
    content = with_region("rectanglelabels", {})
    regions = content[0]["annotations"][0]["result"]
    regions.append(regions[0] | {"original_width": 5})
    with pytest.raises(DataError, match="images of different sizes"):
        read_annotations(write(tmp_path, content))
    regions[1] |= {"value": {"rectanglelabels": "a"}, "original_width": WIDTH}
    with pytest.raises(DataError, match="rectanglelabels that are no list of names"):
        read_annotations(write(tmp_path, content))
