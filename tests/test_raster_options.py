import numpy as np
import pytest

from kshot.errors import ImageError, MaskError
from kshot.io.raster_options import WindowLevel, parse_bands, to_integers


def test_levels_are_percentiles_of_what_is_finite():
    values = np.append(np.arange(101.0), [np.nan, np.inf])
    assert WindowLevel.from_percentiles(values) == (2, 98)
    assert WindowLevel.from_percentiles(np.array([np.nan])) == (0, 1)
    assert WindowLevel.from_percentiles(np.full(9, 7.0)).to_grey(np.array([6.0, 7.0, 8.0])).tolist() == [
        0,
        0,
        255,
    ]


def test_levels_become_grey_between_black_and_white():
    values = np.array([-5, 0, 50, 100, 200, np.nan])
    assert WindowLevel(0, 100).to_grey(values).tolist() == [0, 0, 128, 255, 255, 0]


def test_bands_are_one_or_three():
    assert parse_bands("") is None
    assert parse_bands("4, 3,2") == (4, 3, 2)
    assert parse_bands("7") == (7,)
    for wrong in ("1,2", "0,1,2", "a", "1,2,3,4", "-1"):
        with pytest.raises(ImageError, match="such as 4,3,2"):
            parse_bands(wrong)


def test_masks_hold_integers_of_any_type(tmp_path):
    assert to_integers(np.array([0.0, 3.0, np.nan]), tmp_path).tolist() == [0, 3, 0]
    with pytest.raises(MaskError, match="no integers"):
        to_integers(np.array([0.5]), tmp_path)
