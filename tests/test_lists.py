import hashlib
import lzma
from importlib.resources import files

import pytest

from kshot.data import lists
from kshot.data.benchmarks import read_fold
from kshot.errors import DataError


def test_every_list_that_ships_is_known_and_undamaged():
    folder = files("kshot") / "data" / "splits"
    for name, digest in lists.SHA256.items():
        text = lzma.decompress((folder / f"{name}.txt.xz").read_bytes())
        assert hashlib.sha256(text).hexdigest() == digest
    shipped = {p.name for p in folder.iterdir()} | {
        p.name for d in folder.iterdir() if d.is_dir() for p in d.iterdir()
    }
    assert {n for n in shipped if n.endswith(".xz")} == {f"{n.split('/')[-1]}.txt.xz" for n in lists.SHA256}


def test_the_published_counts_come_out():
    def count(data, split):
        return [len(read_fold(data, fold, split).queries) for fold in range(4)]

    assert count("pascal", "train") == [2286, 3425, 5883, 2086]
    assert count("pascal", "val") == [346, 451, 725, 346]
    assert sum(count("coco", "train")) == 170_491
    assert sum(count("coco", "val")) == 82_573
    assert [len(lists.fss_classes(split)) for split in ("train", "val", "test")] == [520, 240, 240]
    assert len(read_fold("fss1000").queries) == 2400


def test_pairs_keep_the_order_of_the_file():
    assert lists.pascal_pairs("val", 0)[:2] == [("2007_000033", 0), ("2007_000061", 3)]
    assert lists.class_images("coco20i/val")[0][:3] == ["429717", "48044", "221350"]


def test_a_damaged_list_is_an_error(monkeypatch):
    monkeypatch.setitem(lists.SHA256, "fss1000/test", "0" * 64)
    with pytest.raises(DataError, match=r"fss1000/test .* installation is damaged"):
        lists.fss_classes("test")
