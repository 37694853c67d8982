import numpy as np
import pytest
from make_data import colour_segmenter, scene
from make_data import iou as iou_of
from test_cli import run

from kshot import Segmenter
from kshot.io.overlays import mask_image
from kshot.predict.support_check import LOW_IOU, low_iou_warning, support_iou
from kshot.results import SegmentationResult


def test_a_support_is_compared_with_its_own_mask():
    picture, mask = scene()
    fitted = colour_segmenter(image_size=96).fit(picture, mask)
    assert support_iou(fitted, picture, mask) == iou_of(fitted.predict(picture).mask, mask) > 0.8
    half = mask & (np.arange(mask.shape[1]) < 42)  # of one colour: all of the disc is found
    fitted = colour_segmenter(image_size=96).fit(picture, half)
    assert support_iou(fitted, picture, half) == pytest.approx(half.sum() / mask.sum(), abs=0.1)


def test_of_a_large_image_the_window_of_the_support_is_segmented(monkeypatch):
    picture, mask = scene(width=300, left=200)
    fitted, seen = colour_segmenter(tile=64).fit(picture, mask), []

    def find_all(self, part):
        seen.append(part.size)
        everything = np.ones((part.height, part.width), np.float32)
        return SegmentationResult.of_one_class(everything > 0, everything)

    monkeypatch.setattr(Segmenter, "predict", find_all)
    assert support_iou(fitted, picture, mask) == mask.sum() / 64**2
    assert seen == [(64, 64)]


def test_only_a_low_iou_gives_a_warning():
    assert low_iou_warning(LOW_IOU, "'cup'") is None
    line = low_iou_warning(0.05, "'cup'")
    assert line.startswith("The model hardly finds 'cup' in its own support image (IoU 0.05")
    assert "\n" not in line


def test_the_command_says_so_in_one_line(tmp_path, capsys):
    picture, mask = scene()
    picture.save(tmp_path / "a.png")
    dot = np.zeros_like(mask)
    dot[2:6, 2:6] = True  # of nothing but background
    for name, one in {"good": mask, "bad": dot}.items():
        mask_image(one).save(tmp_path / f"{name}.png")
        options = [tmp_path / "a.png", "--image-size", 257, "--out", tmp_path / name]
        assert run("segment", "--support", tmp_path / "a.png", tmp_path / f"{name}.png", *options) == 0
        printed = capsys.readouterr().err
        assert printed.count("The model hardly finds 'object' in its own support image") == (name == "bad")
        assert printed.count("\n") == (name == "bad")
