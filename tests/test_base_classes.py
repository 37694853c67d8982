from pathlib import Path

import numpy as np
import pytest
from make_data import HOLDOUT, NOVEL, TRAINED, write_folder, write_pascal, write_training_images
from PIL import Image

from kshot.data.base_classes import (
    base_labels,
    draw_image_names,
    drop_excluded,
    excluded_classes,
    has_holdout_classes,
    holdout_classes,
    image_names,
    join,
    present,
    train_fold,
)
from kshot.data.benchmarks import read_fold
from kshot.data.folder import Folder
from kshot.data.folds import base_classes, fold_holdout_classes, novel_classes
from kshot.data.pascal import Pascal
from kshot.errors import DataError
from kshot.evaluation.selection import check_holdout_classes, selection_fold


@pytest.mark.parametrize("fold", range(4))
@pytest.mark.parametrize("benchmark", ["pascal", "coco"])
def test_a_fold_trains_on_its_base_classes_and_no_others(benchmark, fold):
    full = train_fold(benchmark, fold, exclude_holdout=False)
    assert set(full.images) == set(base_classes(benchmark, fold))
    assert {c for _, c in full.queries} == set(base_classes(benchmark, fold))
    assert set(excluded_classes(benchmark, fold, exclude_holdout=False)) == set(
        novel_classes(benchmark, fold)
    )
    part = train_fold(benchmark, fold, exclude_holdout=True)
    assert not set(part.images) & set(excluded_classes(benchmark, fold, exclude_holdout=True))
    assert set(full.images) - set(part.images) == set(fold_holdout_classes(benchmark, fold))
    tested = {name for name, _ in read_fold(benchmark, fold).queries}
    assert not tested & {name for name, _ in full.queries}


def test_what_has_no_folds_trains_on_all_it_has():
    assert len(train_fold("fss1000", 0, exclude_holdout=False).images) == 520
    assert excluded_classes("fss1000", 0, exclude_holdout=False) == ()
    assert len(train_fold("fss1000", 0, exclude_holdout=True).images) == 520 - 104


def folder_of(tmp_path, num_classes):
    """Write a user folder with one unused class; each other class is in two images."""
    pairs = [(f"im{class_id}{n}", class_id) for class_id in range(num_classes) for n in range(2)]
    names = tuple(f"class{n}" for n in range(num_classes + 1))
    return str(write_folder(tmp_path / f"of {num_classes}", pairs, class_names=names))


def test_every_fifth_class_of_a_folder_is_a_holdout_class(tmp_path):
    data = folder_of(tmp_path, 8)
    assert set(train_fold(data, 0, exclude_holdout=False).images) == set(range(8))
    assert holdout_classes(data, 0) == excluded_classes(data, 0, exclude_holdout=True) == (2, 7)
    kept = train_fold(data, 0, exclude_holdout=True)
    assert set(kept.images) == {class_id for _, class_id in kept.queries} == {0, 1, 3, 4, 5, 6}
    assert set(selection_fold(data, 0, "base").images) == {2, 7}
    with pytest.raises(DataError, match="no novel classes"):
        selection_fold(data, 0, "novel")


def test_a_folder_is_read_once_until_it_changes(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(Folder, "fold", lambda self, fold=Folder.fold: read.append(self) or fold(self))
    data = folder_of(tmp_path, 5)
    for _ in range(3):
        assert holdout_classes(data, 0) == (2,)
        assert len(train_fold(data, 0, exclude_holdout=True).images) == 4
    check_holdout_classes(data, 0, ("class0",))
    assert len(read) == 1
    mask = next((Path(data) / "masks").rglob("im40.png"))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(mask)
    assert len(train_fold(data, 0, exclude_holdout=False).images[4]) == 1
    next((Path(data) / "masks").rglob("im41.png")).unlink()
    assert not has_holdout_classes(data, 0)
    assert len(read) == 3


def test_a_folder_of_few_classes_keeps_them_all(tmp_path):
    data = folder_of(tmp_path, 4)
    assert not has_holdout_classes(data, 0)
    assert set(train_fold(data, 0, exclude_holdout=False).images) == set(range(4))
    with pytest.raises(DataError, match="has 4 classes; at least 5 are needed"):
        train_fold(data, 0, exclude_holdout=True)


def test_without_a_cap_an_epoch_is_every_image_once():
    fold = train_fold("pascal", 0, exclude_holdout=True)
    first, second = (draw_image_names(fold, 3, epoch, None) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == sorted(image_names(fold))
    assert first != second
    assert first == draw_image_names(fold, 3, 0, None)


def test_under_a_cap_common_classes_show_their_images_in_turn():
    pairs = read_fold("pascal", 2, "train").only((11, 13))  # 1,148 dogs and 142 motorbikes, say
    fold = join(0, [pairs])
    cap = 50
    epochs = [draw_image_names(fold, 0, epoch, cap) for epoch in range(len(fold.images[11]) // cap)]
    assert all(len(epoch) == 2 * cap for epoch in epochs)
    dogs = [name for epoch in epochs for name in epoch if name in set(fold.images[11])]
    only_dogs = [name for name in dogs if name not in set(fold.images[13])]
    assert len(set(only_dogs)) == len(only_dogs)  # none a second time before all were shown


@pytest.fixture
def voc(tmp_path):
    return Pascal(write_training_images(tmp_path))


def test_labels_count_from_one_and_omit_what_is_not_learned(voc):
    fold = present(train_fold("pascal", 0, exclude_holdout=True), voc)
    name = next(name for name in fold.images[11] if NOVEL[0] in voc.classes_in(name))
    assert voc.classes_in(name) == (NOVEL[0], 11)
    labels = base_labels(voc, name, TRAINED, NOVEL)
    ground_truth, bird = voc.ground_truth(name, 11), voc.ground_truth(name, NOVEL[0])
    np.testing.assert_array_equal(labels == TRAINED.index(11) + 1, ground_truth == 1)
    assert (labels[bird == 1] == 0).all()
    assert (labels[:, 0] == 255).all()
    ignored = base_labels(voc, name, TRAINED, NOVEL, novel_pixels="ignore", unknown_pixels="background")
    assert (ignored[bird == 1] == 255).all()
    assert (ignored[:, 0] == 0).all()
    cat = present(read_fold("pascal", 1, "train"), voc).images[HOLDOUT[0]][0]
    assert set(np.unique(base_labels(voc, cat, TRAINED, NOVEL))) == {0, 255}
    hidden = base_labels(voc, cat, TRAINED, (*NOVEL, *HOLDOUT), novel_pixels="ignore")
    assert (hidden[voc.ground_truth(cat, HOLDOUT[0]) == 1] == 255).all()


def test_images_of_novel_objects_can_be_dropped(voc):
    fold = present(train_fold("pascal", 0, exclude_holdout=True), voc)
    dropped = drop_excluded(fold, voc, NOVEL, "drop")
    (gone,) = set(image_names(fold)) - set(image_names(dropped))
    assert NOVEL[0] in voc.classes_in(gone)
    assert drop_excluded(fold, voc, NOVEL, "ignore") == fold


def test_the_smaller_object_is_on_top_where_two_overlap():
    class Overlapping:
        def classes_in(self, name):
            return (0, 1)

        def ground_truth(self, name, class_id):
            ground_truth = np.zeros((4, 4), dtype=np.uint8)
            ground_truth[: 4 if class_id == 0 else 2] = 1
            return ground_truth

    labels = base_labels(Overlapping(), "both", (0, 1))
    assert (labels[:2] == 2).all()
    assert (labels[2:] == 1).all()


def test_an_image_without_classes_is_an_error(tmp_path):
    empty = Pascal(write_pascal(tmp_path, [("bare", 3)]))
    empty.classes_in = lambda name: ()
    with pytest.raises(DataError, match="bare shows no class"):
        base_labels(empty, "bare", (3,))
