import json
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_annotations import (
    TOOLS,
    coco_content,
    cvat_text,
    ground_truths,
    label_studio_content,
    labelme_content,
    write_annotated,
)
from make_data import iou, two_things

from kshot.annotations.reader import read_annotations
from kshot.errors import DataError, ImageError, KshotError
from kshot.io.images import read_image


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tools_annotations_are_the_same_masks(tmp_path, tool):
    annotations = read_annotations(write_annotated(tmp_path, tool))
    names = {"disc": "bus", "square": "car"} if tool == "voc" else {"disc": "disc", "square": "square"}
    order = list(names.values())
    assert annotations.class_names == tuple(reversed(order) if tool.startswith("cvat") else order)
    (image,) = annotations.images
    source, masks = image.read()
    np.testing.assert_array_equal(np.asarray(read_image(source)), np.asarray(two_things()[0]))
    assert set(masks) == set(order)
    is_drawn = tool in ("coco", "cvat", "label-studio", "labelme", "labelme-embedded")
    for name, ground_truth in ground_truths().items():
        found = masks[names[name]]
        assert (found.dtype, found.shape) == (bool, ground_truth.shape)
        if is_drawn and name == "disc":
            assert iou(found, ground_truth) > 0.97  # PIL's circle and a polygon differ along the edge
        else:
            np.testing.assert_array_equal(found, ground_truth)


@pytest.mark.parametrize("tool", ["coco", "cvat", "label-studio", "labelme"])
def test_images_may_lie_in_a_folder_that_is_named(tmp_path, tool):
    path = write_annotated(tmp_path / "labels", tool)
    shutil.move(tmp_path / "labels" / "images", tmp_path / "photos")
    with pytest.raises(ImageError, match=r"is not in .*labels.* or .*images.*--support-images"):
        read_annotations(path).images[0].read()
    (tmp_path / "photos" / "deep").mkdir()
    shutil.move(tmp_path / "photos" / "table.png", tmp_path / "photos" / "deep" / "table.png")
    _, masks = read_annotations(path, tmp_path / "photos").images[0].read()
    assert set(masks) == {"disc", "square"}
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        read_annotations(path, tmp_path / "nowhere")


def test_a_folder_of_labelmes_files_is_read_and_so_is_a_folder_of_one_file(tmp_path):
    write_annotated(tmp_path / "one", "cvat")
    assert read_annotations(tmp_path / "one").class_names == ("square", "disc")
    write_annotated(tmp_path / "many", "labelme")
    second = labelme_content() | {"shapes": labelme_content()["shapes"][:1]}
    second["shapes"][0]["label"] = "another"
    (tmp_path / "many" / "second.json").write_text(json.dumps(second))
    annotations = read_annotations(tmp_path / "many")
    assert annotations.class_names == ("another", "disc", "square")
    assert annotations.count_images() == {"another": 1, "disc": 1, "square": 1}
    (tmp_path / "many" / "third.json").write_text("{}")
    (tmp_path / "many" / "fourth.json").write_text("{")
    left_out = {str(kind): kind.examples for kind in read_annotations(tmp_path / "many").summary.left_out}
    assert left_out["1 file of another kind"] == (str(tmp_path / "many" / "third.json"),)
    assert "fourth.json is no JSON" in left_out["1 file that cannot be read"][0]
    (tmp_path / "many" / "deep").mkdir()
    (tmp_path / "many" / "deep" / "fifth.json").write_text(json.dumps(labelme_content()))
    assert read_annotations(tmp_path / "many").summary.images == 3


def test_a_folder_of_several_files_must_have_one_of_annotations(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    write_annotated(tmp_path, "coco")
    annotations = read_annotations(tmp_path)
    assert annotations.class_names == ("disc", "square")
    assert "1 file of another kind" in str(annotations.summary)
    write_annotated(tmp_path / "other", "cvat")
    with pytest.raises(DataError, match="holds 2 annotation files"):
        read_annotations(tmp_path)


def test_other_files_are_errors_that_name_them(tmp_path):
    with pytest.raises(DataError, match=r"no file or folder .*gone"):
        read_annotations(tmp_path / "gone")
    with pytest.raises(DataError, match="holds no annotations: neither images/ and masks/"):
        read_annotations(tmp_path)
    path = tmp_path / "file"
    for text, reason in {
        "[]": "in no format that kshot reads",
        '{"a": 1}': "in no format that kshot reads",
        "\x00": "no JSON file",
        "<a": "no XML file",
        "<a></a>": "no 'CVAT for images 1.1' file",
        "[" * 100_000: "nested too deeply",
    }.items():
        path.write_text(text)
        with pytest.raises(DataError, match=reason):
            read_annotations(path)
    write_annotated(tmp_path / "masks", "folder")
    with pytest.raises(DataError, match="Leave out --support-images"):
        read_annotations(tmp_path / "masks", tmp_path)


def test_a_file_that_memory_cannot_hold_is_an_error(beside, monkeypatch):
    def too_large(_):
        raise MemoryError

    (beside / "file").write_text("{}")
    monkeypatch.setattr("pathlib.Path.read_bytes", too_large)
    assert "does not fit into the memory" in complaints(beside / "file")


NUMBERS = st.sampled_from([0, -1, 2.5, 1e9, -1e300, 10**400, float("nan"), float("inf"), True])
TEXTS = st.sampled_from(["", "a\nb", "../" * 30 + "x", "\x00", "x" * 5000, "http://[", "o" * 400, "000"])
JUNK = st.one_of(
    NUMBERS,
    TEXTS,
    st.none(),
    st.lists(st.one_of(NUMBERS, TEXTS), max_size=7),
    st.lists(st.lists(NUMBERS, max_size=7), max_size=3),
    st.dictionaries(st.sampled_from(["size", "counts", "points"]), st.one_of(NUMBERS, TEXTS), max_size=3),
)


def places(content, at=()):
    """List the ways to all parts of a JSON document."""
    yield at
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        if isinstance(value, dict | list) and len(value) < 100:
            yield from places(value, (*at, key))
        else:
            yield (*at, key)


def damaged(content, at, junk):
    if not at:
        return junk
    copy = content.copy()
    copy[at[0]] = damaged(content[at[0]], at[1:], junk)
    return copy


DOCUMENTS = [
    coco_content("coco"),
    coco_content("coco-string"),
    labelme_content("labelme"),
    labelme_content("labelme-masks"),
    label_studio_content("label-studio"),
    label_studio_content("label-studio-brush"),
]


def complaints(path):
    """Read and draw everything; give what is wrong. Any other exception fails the test."""
    try:
        for image in read_annotations(path).images:
            image.read()
    except KshotError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A folder with the image, for files to be written into."""
    root = tmp_path_factory.mktemp("damaged")
    write_annotated(root, "coco").unlink()
    return root


SETTINGS = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


@SETTINGS
@given(data=st.data())
def test_damaged_json_is_an_error_of_one_line_or_none(beside, data):
    content = data.draw(st.sampled_from(DOCUMENTS))
    at = data.draw(st.sampled_from(list(places(content))))
    (beside / "file").write_text(json.dumps(damaged(content, at, data.draw(JUNK))))
    assert "\n" not in complaints(beside / "file")


@SETTINGS
@given(data=st.data())
def test_damaged_xml_is_an_error_of_one_line_or_none(beside, data):
    text = cvat_text(masks=data.draw(st.booleans()))
    words = sorted(set(text.replace("<", '"').replace(">", '"').split('"')) - {""})
    word = data.draw(st.sampled_from(words))
    junk = ["", "nan", "-1", "1e9", "1, 2", "3;4", "9" * 400, "<a>" * 5, "é\n", "&x;"]
    (beside / "file").write_text(text.replace(word, data.draw(st.sampled_from(junk)), 1))
    assert "\n" not in complaints(beside / "file")
