import pytest
from make_data import coloured_scene, write_fss

from kshot.data.benchmarks import read_fold
from kshot.data.fss1000 import CLASSES, FSS1000
from kshot.errors import DataError


def test_images_and_masks_are_found_by_class_and_number(tmp_path):
    root = write_fss(tmp_path / "FSS-1000", CLASSES[760:762])
    for place in (root, tmp_path):
        dataset = FSS1000(place)
        assert dataset.image_path(f"{CLASSES[761]}/10").exists()
        _, labels = coloured_scene([1])
        assert ((dataset.ground_truth(f"{CLASSES[761]}/3", 761) == 1) == (labels > 0)).all()


def test_splits_have_their_classes_and_sort_files_as_text():
    sizes = [len(read_fold("fss1000", 0, split).images) for split in ("train", "val", "test")]
    assert sizes == [520, 240, 240]
    fold = read_fold("fss1000", 0, "test")
    assert [name.split("/")[1] for name, _ in fold.queries[:4]] == ["1", "10", "2", "3"]
    assert [name.split("/")[1] for name in fold.images[760][:4]] == ["1", "2", "3", "4"]
    assert len(set(CLASSES)) == 1000
    with pytest.raises(DataError, match="Split is 'dev'"):
        read_fold("fss1000", 0, "dev")


def test_a_wrong_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="none of the 1000 classes"):
        FSS1000(tmp_path)
