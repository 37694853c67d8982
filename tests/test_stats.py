import numpy as np
import pytest
from PIL import Image

from kshot.predict.stats import PredictionStats, Thumbnail
from kshot.results import SegmentationResult

RANDOM = np.random.default_rng(0)


def strip(rows):
    probability = RANDOM.random((rows, 23), np.float32)
    probability[0, 0] = np.nan
    return SegmentationResult.of_one_class(probability > 0.5, probability)


@pytest.mark.parametrize("step", [1, 3, 8])
def test_strips_give_the_thumbnail_and_the_numbers_of_the_whole(step):
    parts = [strip(rows) for rows in (7, 1, 2, 9, 4)]
    whole, thumbnail, stats = SegmentationResult.stack(parts, 23), Thumbnail(step), PredictionStats()
    for part in parts:
        thumbnail.add(part)
        stats.add(part)
    shown = thumbnail.whole()
    np.testing.assert_array_equal(shown.mask, whole.mask[::step, ::step])
    np.testing.assert_array_equal(shown.probability, np.nan_to_num(whole.probability[::step, ::step]))
    summary = stats.summary(Image.new("RGB", (1, 1)), shown)
    assert summary.shares == {"object": pytest.approx(whole.mask.mean())}
    assert summary.confidence == pytest.approx(whole.confidence)


def test_of_several_classes_each_is_reported():
    both = SegmentationResult.merge({"a": strip(4), "b": strip(4)})
    stats, thumbnail = PredictionStats(), Thumbnail(2)
    stats.add(both)
    thumbnail.add(both)
    labels = both.labels
    assert stats.summary(None, both).shares == {"a": (labels == 1).mean(), "b": (labels == 2).mean()}
    np.testing.assert_array_equal(thumbnail.whole().labels, labels[::2, ::2])


def test_where_nothing_was_found_the_confidence_is_that_of_the_likeliest_pixel():
    nothing = SegmentationResult.of_one_class(np.zeros((2, 2), bool), np.zeros((2, 2), np.float32))
    stats = PredictionStats()
    stats.add(nothing)
    assert stats.summary(None, nothing)[2:] == ({"object": 0}, 1)
    unsure = SegmentationResult.of_one_class(np.zeros((1, 2), bool), np.array([[0.4, np.nan]], np.float32))
    stats.add(unsure)
    assert stats.summary(None, nothing).confidence == pytest.approx(0.6) == unsure.confidence
