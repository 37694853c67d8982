import pytest

from kshot.data.folds import (
    COCO_CLASSES,
    NUM_FOLDS,
    PASCAL_CLASSES,
    VOC_CLASSES_OF_COCO,
    base_classes,
    fold_holdout_classes,
    novel_classes,
)
from kshot.errors import DataError

SIZES = {"pascal": 20, "coco": 80}


@pytest.mark.parametrize("benchmark", SIZES)
def test_folds_share_no_class_and_miss_none(benchmark):
    folds = [novel_classes(benchmark, fold) for fold in range(NUM_FOLDS)]
    assert sorted(c for fold in folds for c in fold) == list(range(SIZES[benchmark]))
    for fold in range(NUM_FOLDS):
        base, novel = set(base_classes(benchmark, fold)), set(folds[fold])
        assert not base & novel
        assert len(base | novel) == SIZES[benchmark]
        holdout = set(fold_holdout_classes(benchmark, fold))
        assert holdout < base
        assert len(holdout) == len(base) // 5


def test_the_folds_are_the_published_ones():
    assert [PASCAL_CLASSES[c] for c in novel_classes("pascal", 1)] == ["bus", "car", "cat", "chair", "cow"]
    assert [COCO_CLASSES[c] for c in novel_classes("coco", 0)][:3] == ["person", "airplane", "boat"]
    assert novel_classes("coco", 3) == tuple(range(3, 80, 4))
    assert (len(PASCAL_CLASSES), len(COCO_CLASSES)) == (20, 80)
    assert len(set(COCO_CLASSES) - VOC_CLASSES_OF_COCO) == 60
    assert [PASCAL_CLASSES[c] for c in fold_holdout_classes("pascal", 0)] == ["cat", "horse", "sofa"]


@pytest.mark.parametrize("call", [novel_classes, base_classes, fold_holdout_classes])
def test_what_does_not_exist_is_an_error(call):
    with pytest.raises(DataError, match="folds 0 to 3"):
        call("pascal", 4)
    with pytest.raises(DataError, match="'fss1000' has no folds"):
        call("fss1000", 0)
