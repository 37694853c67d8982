import numpy as np
import pytest
from make_data import coloured_scene, write_folder
from PIL import Image

from kshot.data.benchmarks import read_fold
from kshot.data.folder import Folder
from kshot.errors import DataError

PAIRS = [("a", 0), ("a", 1), ("b", 1), ("c", 0)]


def save(path, values):
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path)


@pytest.mark.parametrize("layout", ["numbers", "folders"])
def test_both_layouts_have_the_same_pairs_and_ground_truth(tmp_path, layout):
    dataset = Folder(write_folder(tmp_path, PAIRS, layout, ("ant", "bee")))
    assert dataset.class_names == ("ant", "bee")
    fold = dataset.fold()
    assert list(fold.queries) == PAIRS
    assert fold.images == {0: ("a", "c"), 1: ("a", "b")}
    _, labels = coloured_scene([0, 1])
    np.testing.assert_array_equal(dataset.ground_truth("a", 1), labels == 2)
    assert dataset.image_path("b").exists()


def test_classes_without_names_are_numbered(tmp_path):
    assert Folder(write_folder(tmp_path, PAIRS)).class_names == ("class 1", "class 2")


def test_masks_of_0_and_255_show_one_object(tmp_path):
    write_folder(tmp_path, [("a", 0), ("b", 0)])
    for name in "ab":
        save(tmp_path / "masks" / f"{name}.png", [[0, 255], [0, 0]])
    dataset = Folder(tmp_path)
    assert dataset.class_names == ("object",)
    assert dataset.fold().images == {0: ("a", "b")}
    assert dataset.ground_truth("a", 0).tolist() == [[0, 1], [0, 0]]


def test_255_beside_numbers_is_unknown(tmp_path):
    write_folder(tmp_path, [("a", 0)])
    save(tmp_path / "masks" / "a.png", [[0, 255], [1, 0]])
    assert Folder(tmp_path).ground_truth("a", 0).tolist() == [[0, 255], [1, 0]]


def test_what_is_broken_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*images and no folder .*masks"):
        Folder(tmp_path)
    write_folder(tmp_path, PAIRS, class_names=("ant", "bee"))
    save(tmp_path / "masks" / "b.png", [[9]])
    with pytest.raises(DataError, match=r"1 masks .* unknown values \(9\).*kshot data check"):
        Folder(tmp_path).fold()
    (tmp_path / "masks" / "c.png").unlink()
    save(tmp_path / "masks" / "z.png", [[0]])
    lines = Folder(tmp_path).unpaired()
    assert [line.split("/")[-1] for line in lines] == ["c.png has no mask.", "z.png has no image."]
    (tmp_path / "images" / "a.jpg").write_bytes((tmp_path / "images" / "a.png").read_bytes())
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have one name"):
        _ = Folder(tmp_path).images


def test_coco_mini_60_has_cocos_numbers_and_none_of_vocs_classes():
    fold = read_fold("coco-mini-60")
    assert len(fold.images) == 60
    assert fold.class_names[next(iter(fold.images))] == "truck"
    assert len(fold.large_enough(1).images) == 53
    assert len(fold.large_enough(5).images) == 33
