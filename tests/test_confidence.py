import numpy as np
import pytest

from kshot.web.confidence import confidence


def test_it_is_the_mean_certainty_on_the_object_and_its_border_by_hand():
    probability = np.full((100, 150), 0.5, np.float32)  # uncertain, but nobody asks about it
    mask = np.zeros((100, 150), bool)
    mask[40:60, 70:90] = True
    probability[mask] = 0.9  # 0.8 certain
    probability[38:62, 68:92][~mask[38:62, 68:92]] = 0.2  # the border, 2 = 100 / 50 wide: 0.6 certain
    inside, both = 20 * 20, 24 * 24
    expected = (0.8 * inside + 0.6 * (both - inside)) / both
    assert confidence(probability, mask, 0.5) == pytest.approx(expected, abs=1e-5)


def test_it_is_measured_from_the_threshold():
    mask = np.ones((20, 20), bool)
    for probability, threshold, expected in [(0.8, 0.8, 0), (1, 0.8, 1), (0.9, 0.8, 0.5), (0, 0.3, 1)]:
        found = confidence(np.full((20, 20), probability, np.float32), mask, threshold)
        assert found == pytest.approx(expected, abs=1e-6)


def test_where_nothing_is_found_all_pixels_count():
    probability = np.full((8, 8), 0.25, np.float32)
    probability[:4] = 0
    assert confidence(probability, np.zeros((8, 8), bool), 0.5) == pytest.approx(0.75)


def test_a_thing_at_the_edge_and_a_large_photograph():
    mask = np.zeros((2000, 1100), bool)
    mask[:200, :200] = True
    probability = np.where(mask, 1, 0).astype(np.float32)
    assert confidence(probability, mask, 0.5) == 1
    assert confidence(probability * np.float32(0.75), mask, 0.5) < 0.8
