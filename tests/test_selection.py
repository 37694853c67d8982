import pytest
from make_data import write_pascal

from kshot.data.base_classes import train_fold
from kshot.data.benchmarks import read_fold
from kshot.data.folds import PASCAL_CLASSES, base_classes, fold_holdout_classes, novel_classes
from kshot.data.pascal import Pascal
from kshot.errors import DataError
from kshot.evaluation.selection import check_holdout_classes, selection_fold, selection_manifest


@pytest.mark.parametrize(("benchmark", "fold"), [("pascal", 0), ("pascal", 3), ("coco", 2)])
def test_honest_episodes_show_no_novel_class_and_no_test_image(benchmark, fold):
    chosen_on = selection_fold(benchmark, fold, "base")
    assert sorted(chosen_on.images) == list(fold_holdout_classes(benchmark, fold))
    assert not set(chosen_on.images) & set(novel_classes(benchmark, fold))
    assert set(chosen_on.images) < set(base_classes(benchmark, fold))
    tested_on = {name for name, _ in read_fold(benchmark, fold).queries}
    assert not tested_on & {name for name, _ in chosen_on.queries}
    assert selection_fold(benchmark, fold, "novel") == read_fold(benchmark, fold)


def test_the_draw_takes_what_is_there(tmp_path):
    cats = [(name, 7) for name in selection_fold("pascal", 0, "base").images[7][:4]]
    dataset = Pascal(write_pascal(tmp_path, cats))
    manifest, protocol = selection_manifest(selection_fold("pascal", 0, "base"), 6, dataset)
    assert manifest.classes == {7: "cat"}
    assert len(manifest.episodes) == protocol.num_episodes == 6


def test_a_model_trained_on_the_holdout_classes_is_refused():
    check_holdout_classes("pascal", 0, ("car", "dog"))
    with pytest.raises(DataError, match=r"trained on cat, horse, sofa.*--set select_on=novel"):
        check_holdout_classes("pascal", 0, PASCAL_CLASSES[5:])
    with pytest.raises(DataError, match="trained on"):
        check_holdout_classes("fss1000", 0, train_fold("fss1000", 0, exclude_holdout=False).class_names)
