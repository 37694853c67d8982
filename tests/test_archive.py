import json
import zipfile
from io import BytesIO

import numpy as np
import pytest
from make_data import scene, two_things
from PIL import Image
from pycocotools import mask as coco_masks
from test_uploads import encoded

from kshot.io.images import read_mask
from kshot.web.archive import write_archive
from kshot.web.images import ObjectClass
from kshot.web.limits import Limits
from kshot.web.session_store import Sessions


@pytest.fixture
def session(tmp_path):
    return Sessions(tmp_path / "sessions", Limits()).create()


def unpacked(session, tmp_path):
    path = tmp_path / "results.zip"
    write_archive(session, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def add_result(session, name, labels, probability):
    pixels = Image.fromarray(np.zeros((*labels.shape, 3), np.uint8))
    image = session.add(name, encoded(pixels), "query")
    maps = {int(value): {"probability": probability} for value in np.unique(labels[labels > 0])}
    session.store_result(image, session.version, labels, maps, 0.5)
    return image


def test_masks_overlays_and_annotations_of_one_class(session, tmp_path):
    image, mask = scene()
    support = session.add("cup.png", encoded(image), "support")
    session.set_labels(support, mask.astype(np.uint8))
    add_result(session, "table.jpg", mask.astype(np.uint8), np.where(mask, 0.8, 0).astype(np.float32))
    session.add("not done.jpg", encoded(image), "query")
    files = unpacked(session, tmp_path)
    assert set(files) == {
        "cup_mask.png",
        "cup_overlay.png",
        "table_mask.png",
        "table_overlay.png",
        "labelme/cup.json",
        "labelme/table.json",
        "instances.json",
    }
    for name in ("cup_mask.png", "table_mask.png"):
        with Image.open(BytesIO(files[name])) as found:
            assert set(np.unique(found)) == {0, 255}
            np.testing.assert_array_equal(read_mask(found, mask.shape), mask)
    coco = json.loads(files["instances.json"])
    assert [image["file_name"] for image in coco["images"]] == ["cup.png", "table.jpg"]
    assert [one["score"] for one in coco["annotations"]] == [1, 0.8]
    for one in coco["annotations"]:
        np.testing.assert_array_equal(coco_masks.decode(one["segmentation"]), mask)
    labelme = json.loads(files["labelme/table.json"])
    assert (labelme["imagePath"], labelme["shapes"][0]["label"]) == ("table.jpg", "object")


def test_several_classes_are_palette_images_in_their_colours(session, tmp_path):
    session.set_classes(
        [
            ObjectClass(value=4, name="disc", colour="#00ff00"),
            ObjectClass(value=6, name="square", colour="#0000ff"),
        ]
    )
    labels = np.array([0, 4, 6], np.uint8)[two_things()[1]]
    add_result(session, "a.png", labels, np.full(labels.shape, 0.6, np.float32))
    files = unpacked(session, tmp_path)
    assert json.loads(files["classes.json"]) == {"disc": 4, "square": 6}
    with Image.open(BytesIO(files["a_labels.png"])) as found:
        np.testing.assert_array_equal(found, labels)
        coloured = np.asarray(found.convert("RGB"))
    assert tuple(coloured[labels == 4][0]) == (0, 255, 0)
    with Image.open(BytesIO(files["a_overlay.png"])) as overlay:
        pixels = np.asarray(overlay)[labels == 6]
    assert np.median(pixels[:, 2]) == 128  # half blue on black
    categories = {one["id"]: one["name"] for one in json.loads(files["instances.json"])["categories"]}
    named = {categories[one["category_id"]] for one in json.loads(files["instances.json"])["annotations"]}
    assert named == {"disc", "square"}


def test_names_are_safe_and_each_has_its_own(session, tmp_path):
    mask = scene()[1].astype(np.uint8)
    for name in ("a.jpg", "A.png", "..", 'c:"d?.png'):
        add_result(session, name, mask, mask.astype(np.float32))
    names = {name for name in unpacked(session, tmp_path) if name.endswith("_mask.png")}
    assert names == {"a_mask.png", "A_2_mask.png", "image_mask.png", "c__d__mask.png"}


def test_stale_results_are_left_out(session, tmp_path):
    image, mask = scene()
    add_result(session, "old.jpg", mask.astype(np.uint8), mask.astype(np.float32))
    session.set_labels(session.add("s.png", encoded(image), "support"), mask.astype(np.uint8))
    assert {name for name in unpacked(session, tmp_path) if "mask" in name} == {"s_mask.png"}


@pytest.mark.parametrize("name", ["CON", "nul.png", "Com1.tar.jpg", "aux .png"])
def test_no_file_is_named_as_a_device_of_windows(session, tmp_path, name):
    image, mask = scene()
    session.set_labels(session.add(name, encoded(image), "support"), mask.astype(np.uint8))
    session.set_labels(session.add("console.png", encoded(image), "support"), mask.astype(np.uint8))
    stems = {path.rpartition("/")[2].partition(".")[0] for path in unpacked(session, tmp_path)}
    assert not {stem.rstrip().lower() for stem in stems} & {"con", "nul", "com1", "aux"}
    assert "console_mask" in stems
