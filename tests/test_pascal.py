import numpy as np
import pytest
from make_data import coloured_scene, write_pascal

from kshot.data.benchmarks import read_fold
from kshot.data.pascal import Pascal
from kshot.errors import DataError

PAIRS = [("2007_000001", 0), ("2007_000001", 4), ("2007_000002", 4)]


@pytest.mark.parametrize("below", ["", "VOC2012"])
def test_ground_truth_is_one_class_and_255_where_unknown(tmp_path, below):
    dataset = Pascal(write_pascal(tmp_path, PAIRS) / below)
    _, labels = coloured_scene([0, 4])
    ground_truth = dataset.ground_truth("2007_000001", 4)
    assert (ground_truth[:, 0] == 255).all()
    np.testing.assert_array_equal(ground_truth[:, 1:] == 1, labels[:, 1:] == 5)
    assert dataset.image_path("2007_000002").exists()


def test_all_missing_folders_are_named_at_once(tmp_path):
    with pytest.raises(
        DataError, match=r"JPEGImages and no folder .*SegmentationClassAug.*data prepare pascal"
    ):
        Pascal(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(DataError, match="SegmentationClassAug") as caught:
        Pascal(tmp_path)
    assert "JPEGImages" not in str(caught.value)


def test_a_split_that_does_not_exist_is_an_error():
    with pytest.raises(DataError, match="Split is 'test'"):
        read_fold("pascal", 0, "test")
