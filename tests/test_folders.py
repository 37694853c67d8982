import json

import numpy as np
import pytest
from make_annotations import write_annotated
from make_data import scene, write_folder
from PIL import Image

from kshot.annotations.folders import MaskFolders
from kshot.annotations.reader import read_annotations
from kshot.errors import DataError, MaskError


def test_which_folder_holds_the_masks_follows_from_the_images(tmp_path):
    write_annotated(tmp_path, "side-by-side")
    (tmp_path / "photos").rename(tmp_path / "z")  # now the masks come first
    assert read_annotations(tmp_path).images[0].read()[0] == tmp_path / "z" / "table.png"
    Image.open(tmp_path / "z" / "table.png").convert("L").save(tmp_path / "z" / "table.png")
    with pytest.raises(DataError, match=r"cannot be told.*Call the folders images and masks"):
        read_annotations(tmp_path)


def test_masks_of_one_thing_need_no_names(tmp_path):
    for name in ("photos", "truth"):
        (tmp_path / name).mkdir()
    image, mask = scene()
    image.save(tmp_path / "photos" / "a.jpg")
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(tmp_path / "truth" / "a.png")
    annotations = read_annotations(tmp_path)
    assert annotations.class_names == ("object",)
    np.testing.assert_array_equal(annotations.images[0].read()[1]["object"], mask)
    scene(width=130)[0].save(tmp_path / "photos" / "a.jpg")
    with pytest.raises(MaskError, match="The mask is 120 x 90 pixels, but the image is 130 x 90"):
        read_annotations(tmp_path).images[0].read()


def test_images_without_masks_are_not_used(tmp_path):
    write_annotated(tmp_path, "voc")
    scene()[0].save(tmp_path / "JPEGImages" / "without.jpg")
    assert [image.name for image in read_annotations(tmp_path).images] == ["table.png"]
    (tmp_path / "SegmentationClass" / "table.png").unlink()
    with pytest.raises(DataError, match="annotates nothing"):
        read_annotations(tmp_path)


@pytest.mark.parametrize("form", [lambda names: {"classes": names, "licence": "CC0"}, lambda names: names])
def test_classes_json_names_the_classes(tmp_path, form):
    write_folder(tmp_path, [("a", 0), ("b", 1)])
    (tmp_path / "classes.json").write_text(json.dumps(form({"2": "bee", "1": "ant", "3": "cow"})))
    folders = MaskFolders(tmp_path / "images", tmp_path / "masks")
    assert folders.class_names == ("ant", "bee", "cow")
    assert folders.classes_in("b") == (1,)
    (tmp_path / "classes.txt").write_text("x\ny\n")  # as before
    assert MaskFolders(tmp_path / "images", tmp_path / "masks").class_names == ("x", "y")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON file"),
        ("[1]", r"names no classes: it holds \[1\]"),
        ('{"classes": {}}', r"names no classes: it holds \{\}"),
        ('{"1": "ant", "3": "cow"}', r"has no class 2 among its 2: 1, 3\."),
        ('{"0": "ant", "1": "cow"}', r"has no class 2 among its 2: 0, 1\."),
        ('{"1": "ant", "2": 7}', "names class 2 7; each needs its own name"),
        ('{"1": "ant", "2": "ant"}', 'names class 1 "ant"; each needs its own name'),
    ],
)
def test_faulty_classes_json_says_what_to_write(tmp_path, text, reason):
    write_folder(tmp_path, [("a", 0)])
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=rf"classes.json {reason}.*Write .*numbered from 1 without a gap"):
        MaskFolders(tmp_path / "images", tmp_path / "masks")
