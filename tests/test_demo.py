import sys

import numpy as np
import pytest
from conftest import ROOT, load_module
from make_data import iou
from PIL import Image

# Centres of the 24 coins, and places between them, as (x, y) read off the image.
COINS = [(45, 55), (100, 57), (154, 51), (215, 52), (276, 53), (334, 44)]
COINS += [(45, 124), (102, 126), (153, 128), (206, 125), (271, 119), (336, 125)]
COINS += [(45, 198), (102, 196), (154, 199), (212, 194), (274, 194), (347, 187)]
COINS += [(46, 260), (113, 266), (172, 262), (243, 264), (301, 264), (359, 268)]
BETWEEN = [
    (72, 90),
    (130, 90),
    (185, 90),
    (245, 85),
    (72, 160),
    (130, 160),
    (180, 155),
    (240, 155),
    (300, 150),
]


@pytest.mark.parametrize("name", ["coins", "motorcycle", "eye", "gland", "person", "rocket"])
def test_annotations_lie_in_their_images(demo, name):
    image, mask = demo.annotated_image(name)
    assert mask.shape == (image.height, image.width)
    assert 0.005 < mask.mean() < 0.6


@pytest.mark.slow  # `make demo` runs it too
def test_the_demo_finds_all_coins_from_two_and_a_motorcycle_from_its_other_side(demo, tmp_path, capsys):
    demo.main(list(demo.EPISODES), tmp_path / "demo.png")
    with Image.open(tmp_path / "motorcycle_mask.png") as image:  # a stereo pair: nearly in the same place
        assert iou(np.asarray(image) > 0, demo.annotated_image("motorcycle")[1]) > 0.55
    with Image.open(tmp_path / "coins_mask.png") as image:
        mask = np.asarray(image) > 0
    assert len(COINS) == 24
    assert sum(mask[y, x] for x, y in COINS) >= 23
    assert not any(mask[y, x] for x, y in BETWEEN)
    with Image.open(tmp_path / "demo.png") as sheet:
        assert min(sheet.size) > 900
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {tmp_path / 'demo.png'}"


@pytest.mark.slow
def test_the_image_of_failures_shows_five(demo, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "demo", demo)
    failures = load_module(ROOT / "demo" / "failures.py")
    failures.main(tmp_path / "failures.png")
    with Image.open(tmp_path / "failures.png") as sheet:
        assert sheet.height > 5 * 150
