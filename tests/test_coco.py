import json

import numpy as np
import pytest
from make_data import coloured_scene, write_coco

from kshot.data.benchmarks import read_fold
from kshot.data.coco import Coco
from kshot.errors import DataError, MaskError

PAIRS = [("42", 0), ("42", 16), ("429717", 79)]


@pytest.mark.parametrize("split", ["val2014", "val2017"])
def test_ground_truth_is_the_union_of_objects_and_crowds_are_255(tmp_path, split):
    dataset = Coco(write_coco(tmp_path, PAIRS, split))
    _, labels = coloured_scene([0, 16])
    ground_truth = dataset.ground_truth("42", 0)
    np.testing.assert_array_equal(ground_truth == 1, labels == 1)  # objects lie above the crowd
    crowd = np.zeros_like(ground_truth, dtype=bool)
    crowd[:, : ground_truth.shape[1] // 2] = True
    np.testing.assert_array_equal(ground_truth == 255, crowd & (labels != 1))
    np.testing.assert_array_equal(dataset.ground_truth("42", 16), labels == 17)
    assert dataset.ground_truth("429717", 79).sum() > 0
    assert not dataset.ground_truth("429717", 0).any()
    assert dataset.image_path("429717").exists()


def test_overlapping_objects_of_two_classes_are_both_complete(tmp_path):
    path = write_coco(tmp_path, PAIRS) / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["segmentation"] = content["annotations"][0]["segmentation"]
    path.write_text(json.dumps(content))
    dataset = Coco(tmp_path)
    np.testing.assert_array_equal(dataset.ground_truth("42", 16) == 1, dataset.ground_truth("42", 0) == 1)


def test_compressed_run_lengths_are_read(tmp_path):
    from pycocotools import mask as coco_mask

    path = write_coco(tmp_path, PAIRS) / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    wanted = np.zeros((36, 48), dtype=np.uint8)
    wanted[3:9, 5:20] = 1
    runs = coco_mask.encode(np.asfortranarray(wanted))
    content["annotations"][2]["segmentation"] = {"size": [36, 48], "counts": runs["counts"].decode()}
    path.write_text(json.dumps(content))
    np.testing.assert_array_equal(Coco(tmp_path).ground_truth("429717", 79), wanted)


def test_what_is_missing_or_foreign_is_named(tmp_path):
    with pytest.raises(DataError, match=r"annotations has no instances_train2014\.json or instances_val2014"):
        Coco(tmp_path)
    path = write_coco(tmp_path, PAIRS) / "annotations" / "instances_val2014.json"
    with pytest.raises(MaskError, match=r"COCO image 7 is in none of .*instances_val2014"):
        Coco(tmp_path).ground_truth("7", 0)
    content = json.loads(path.read_text())
    content["categories"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has 79 categories and lacks nothing"):
        Coco(tmp_path).ground_truth("42", 0)
    path.write_text("{")
    with pytest.raises(DataError, match="is no COCO instances file"):
        Coco(tmp_path).ground_truth("42", 0)


def test_folds_are_interleaved_and_class_first():
    fold = read_fold("coco", 2, "val")
    assert tuple(fold.images) == tuple(range(2, 80, 4))
    assert fold.class_first
    with pytest.raises(DataError, match="Split is 'test'"):
        read_fold("coco", 0, "test")
