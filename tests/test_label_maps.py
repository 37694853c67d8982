import numpy as np
import pytest
from PIL import Image

from kshot.annotations.label_maps import read_binary_mask, read_index_mask, select_class
from kshot.errors import MaskError


def save(path, values, mode=None):
    image = Image.fromarray(np.array(values, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path)
    return path


def test_a_mask_of_numbers_is_read_as_it_is(tmp_path):
    path = save(tmp_path / "m.png", [[0, 1, 2], [255, 2, 0]])
    values = read_index_mask(path, range(3))
    assert select_class(values, 2).tolist() == [[0, 0, 1], [255, 1, 0]]
    assert select_class(values, 1).tolist() == [[0, 1, 0], [255, 0, 0]]


def test_unknown_numbers_and_colours_are_named(tmp_path):
    with pytest.raises(MaskError, match=r"m\.png' has unknown values \(7, 9\)"):
        read_index_mask(save(tmp_path / "m.png", [[0, 1, 7, 9]]), range(3))
    with pytest.raises(MaskError, match=r"c\.png' has colours such as \(1, 2, 3\)"):
        read_index_mask(save(tmp_path / "c.png", [[[0, 0, 0], [1, 2, 3]]]), range(3))
    with pytest.raises(MaskError, match="no file"):
        read_index_mask(tmp_path / "gone.png", range(3))


def test_a_bright_mask_may_be_grey_or_coloured(tmp_path):
    for mode in (None, "RGB"):
        path = save(tmp_path / "m.png", [[0, 127, 128, 255]], mode)
        assert read_binary_mask(path).tolist() == [[0, 0, 1, 1]]
