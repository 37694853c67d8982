import re

import numpy as np
import pytest
from make_data import write_coco, write_folder, write_fss, write_pascal
from PIL import Image

from kshot.data import check
from kshot.data.benchmarks import read_fold
from kshot.data.check import check_data
from kshot.data.fss1000 import CLASSES
from kshot.data.sampling import Fold

PAIRS = [(f"im{n}", n % 2) for n in range(8)]


@pytest.fixture
def few_pairs(monkeypatch):
    """PASCAL-5i with eight images of two classes, whose files are made quickly."""

    def read(data, number, split=None):
        if data != "pascal":
            return read_fold(data, number, split)
        images = {c: tuple(n for n, shown in PAIRS if shown == c) for c in (0, 1)}
        names = ("aeroplane", "bicycle")
        return Fold("pascal", split or "val", number, names, images, tuple(PAIRS))

    monkeypatch.setattr(check, "read_fold", read)


def save(path, values):
    Image.fromarray(np.array(values, dtype=np.uint8)).save(path)


@pytest.mark.usefixtures("few_pairs")
def test_each_problem_is_one_line(tmp_path):
    root = write_pascal(tmp_path, PAIRS) / "VOC2012"
    masks, images = root / "SegmentationClassAug", root / "JPEGImages"
    (masks / "im0.png").unlink()
    save(masks / "im1.png", np.ones((5, 5)))
    save(masks / "im2.png", np.full((36, 48), 77))
    Image.new("RGB", (48, 36), (128, 0, 0)).save(masks / "im3.png")
    (images / "im4.jpg").unlink()
    (images / "im5.jpg").write_bytes((images / "im5.jpg").read_bytes()[:200])
    save(masks / "im6.png", np.zeros((36, 48)))
    report = check_data("pascal", tmp_path, fold=0, split="val", shots=5)
    expected = [
        "no file .*SegmentationClassAug/im0.png",
        "Mask of im1 is 5 x 5 pixels, but its image is 48 x 36",
        r"im2.png' has unknown values \(77\)",
        r"im3.png' has colours such as",
        "no file .*im4.jpg",
        "im5.jpg' cannot be read as an image: .*[Tt]runcated",
        "Mask of im6 does not show class 'aeroplane'",
        "Class 'aeroplane' .* has 0 usable images, but 5-shot episodes need 6",
        "Class 'bicycle' .* has 1 usable image, but 5-shot episodes need 6",
    ]
    assert len(report.problems) == len(expected)
    for pattern, line in zip(expected, report.problems, strict=True):
        assert re.search(pattern, line), line
        assert "\n" not in line
    assert [(c.name, c.listed, c.usable, c.small) for c in report.counts] == [
        ("aeroplane", 4, 0, 0),
        ("bicycle", 4, 1, 1),
    ]


@pytest.mark.usefixtures("few_pairs")
def test_complete_data_has_no_problems(tmp_path):
    seen = []
    report = check_data("pascal", write_pascal(tmp_path, PAIRS), on_progress=lambda *a: seen.append(a))
    assert not report.problems
    assert {(c.split, c.fold) for c in report.counts} == {(s, f) for s in ("train", "val") for f in range(4)}
    assert seen[-1] == (8, 8)


def test_a_user_folder_is_checked_completely(tmp_path):
    write_folder(tmp_path, [("a", 0), ("b", 0), ("c", 1), ("d", 1)], class_names=("ant", "bee"))
    save(tmp_path / "masks" / "b.png", np.full((36, 48), 9))
    (tmp_path / "masks" / "c.png").unlink()
    save(tmp_path / "masks" / "z.png", np.ones((2, 2)))
    problems = "\n".join(check_data(str(tmp_path), None).problems)
    for text in ("c.png has no mask", "z.png has no image", "unknown values (9)"):
        assert problems.count(text) == 1
    assert "Class 'ant' (all, fold 0) has 1 usable image," in problems
    assert len(problems.splitlines()) == 5


@pytest.fixture
def short_lists(monkeypatch):
    """Lists of a few images: all others of the benchmark are missing here, and each would be reported."""
    kept = ["42", "74", *(f"{name}/{number}" for name in CLASSES[760:762] for number in range(1, 11))]
    monkeypatch.setattr(check, "read_fold", lambda *fold: read_fold(*fold).keep(kept))


@pytest.mark.usefixtures("short_lists")
def test_coco_and_fss_are_checked_too(tmp_path):
    root = write_coco(tmp_path / "coco", [("42", 16)])
    report = check_data("coco", root, fold=0, split="val")
    assert any("COCO image" in line for line in report.problems)
    (dog,) = [count for count in report.counts if count.name == "dog"]
    assert dog.usable == 1
    (line,) = check_data("coco", root, fold=0, split="train").problems
    assert "There is no instances_train2014.json: nothing of the train split can be used" in line
    report = check_data("fss1000", write_fss(tmp_path / "fss", CLASSES[760:761]), split="test")
    assert [c.usable for c in report.counts][:2] == [10, 0]
