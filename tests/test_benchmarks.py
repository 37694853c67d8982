from pathlib import Path

import pytest
from make_data import write_folder, write_fss, write_pascal

from kshot.data.base import DATASETS
from kshot.data.benchmarks import benchmark_of, open_dataset, read_fold
from kshot.data.fss1000 import CLASSES
from kshot.errors import DataError


def test_names_and_folders_are_distinguished(tmp_path):
    assert [benchmark_of(name) for name in DATASETS] == ["coco", "coco-mini-60", "fss1000", "pascal"]
    assert benchmark_of(str(tmp_path)) == "folder"
    with pytest.raises(DataError, match=r"no benchmark and no folder 'voc'.*pascal"):
        benchmark_of("voc")


def test_each_benchmark_opens(tmp_path):
    write_pascal(tmp_path / "p", [("x", 0)])
    write_fss(tmp_path / "f", CLASSES[:1])
    write_folder(tmp_path / "m", [("x", 0)])
    assert open_dataset("pascal", tmp_path / "p").class_names[0] == "aeroplane"
    assert open_dataset("fss1000", tmp_path / "f").class_names == CLASSES
    assert open_dataset(str(tmp_path / "m"), None).class_names == ("class 1",)
    assert open_dataset("coco-mini-60", tmp_path / "m").class_names[79] == "toothbrush"


@pytest.mark.parametrize(
    ("data", "fold", "split", "reason"),
    [
        ("pascal", 4, None, "folds 0 to 3"),
        ("fss1000", 1, None, "has no folds"),
        ("coco-mini-60", 0, "val", "has no splits"),
    ],
)
def test_a_fold_or_split_that_does_not_exist_is_an_error(data, fold, split, reason):
    with pytest.raises(DataError, match=reason):
        read_fold(data, fold, split)


def test_a_root_is_needed_and_must_be_there(tmp_path):
    with pytest.raises(DataError, match="--root DIR"):
        open_dataset("pascal", None)
    with pytest.raises(DataError, match=r"no folder .*gone"):
        open_dataset("pascal", tmp_path / "gone")


def test_the_frozen_manifests_are_drawn_again_from_the_list():
    from kshot.data.manifest import draw_manifest, read_manifest
    from kshot.data.protocols import preset

    folder = Path(__file__).parent.parent / "benchmarks" / "manifests"
    for shots in (1, 5):
        for seed in (0, 1, 2):
            frozen = read_manifest(folder / f"coco-mini-60_{shots}shot_seed{seed}.json")
            drawn = draw_manifest(read_fold("coco-mini-60"), preset("balanced", "coco-mini-60"), shots, seed)
            assert frozen == drawn
    assert frozen.left_out["toaster"] == 2
