import time

import numpy as np
import pytest
import torch
from make_data import FEW_CHANNELS, colour_segmenter, tiny_method, write_folder

from kshot.data.manifest import make_manifest
from kshot.data.tasks import draw_episodes, folder_set
from kshot.errors import DataError
from kshot.evaluation.evaluator import evaluate
from kshot.evaluation.suite import SegmenterRunner, evaluate_suite
from kshot.io.images import read_image
from kshot.transforms import Resize

PAIRS = [(f"im{n}", n % 2) for n in range(16)]


@pytest.fixture
def sets(tmp_path):
    written = [write_folder(tmp_path / name, PAIRS, class_names=("ant", "bee")) for name in ("one", "two")]
    return [folder_set(root) for root in written]


SECONDS = 0.005
"""Time that `Spy` takes to encode an image."""


class Spy:
    """Predicts the left half of every image, and notes what it is asked for."""

    def __init__(self):
        self.encoded, self.fitted = [], 0

    def encode(self, image, *, as_query):
        self.encoded.append(as_query)
        start = time.process_time()
        while time.process_time() - start < SECONDS:
            pass
        return image.size, torch.zeros(1)

    def fit(self, encoded, masks):
        assert [mask.shape for mask in masks] == [size[::-1] for size, _ in encoded]
        assert all(mask.max() == 1 for mask in masks)
        self.fitted += 1
        return "fitted"

    def predict(self, fitted, encoded, size):
        assert fitted == "fitted"
        assert encoded[0] == size[::-1]
        mask = np.zeros(size, bool)
        mask[:, : size[1] // 2] = True
        return mask, mask.astype(np.float32)


def test_pixels_are_counted_as_by_hand(sets):
    drawn = draw_episodes(sets, 2, draws=3, queries=2)
    scores = evaluate_suite(Spy(), sets, drawn)
    assert [score.episode for score in scores] == list(drawn.episodes)
    for score in scores:
        ground_truth = (
            sets[0].dataset.ground_truth(score.episode.episode.query, score.episode.episode.class_id) == 1
        )
        assert score.counts.intersection == ground_truth[:, :24].sum()
        assert score.counts.union == 36 * 24 + ground_truth[:, 24:].sum()
        assert score.share == ground_truth.mean()


def test_images_are_encoded_once_a_set_and_draws_fitted_once(sets):
    drawn, spy = draw_episodes(sets, 1, draws=3, queries=3), Spy()
    scores = evaluate_suite(spy, sets, drawn)
    queries = {(e.set_name, e.episode.query) for e in drawn.episodes}
    supports = {(e.set_name, s) for e in drawn.episodes for s in e.episode.supports} - queries
    assert spy.encoded.count(True) == len(queries)
    assert spy.encoded.count(False) == len(supports)
    assert spy.fitted == 2 * 2 * 3
    assert all(SECONDS <= score.seconds < 0.5 for score in scores)  # also those from the cache
    spy = Spy()
    again = evaluate_suite(spy, sets, drawn, cache_gb=0)
    assert len(spy.encoded) == 12 + len(drawn.episodes)
    assert [a.counts for a in again] == [a.counts for a in scores]


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("method", ["colour", "prototype", "hsnet-cls"])
def test_a_model_scores_as_in_evaluate(sets, shots, method):
    segmenter = colour_segmenter(64)
    if method != "colour":
        segmenter.method = tiny_method(method, channels=FEW_CHANNELS)
    drawn = draw_episodes(sets[:1], shots, draws=2, queries=2)
    scores = evaluate_suite(SegmenterRunner(segmenter), sets, drawn)
    fold = sets[0].dataset.fold()
    manifest = make_manifest(fold, [row.episode for row in drawn.episodes], "balanced", 0, {})
    (counted,) = evaluate(segmenter, sets[0].dataset, [manifest], Resize(64), at_original_size=True)
    np.testing.assert_array_equal([score.counts for score in scores], counted.counts)


def test_a_model_predicts_mask_and_probability_of_the_image(sets):
    runner, data = SegmenterRunner(colour_segmenter()), sets[0].dataset
    image = read_image(data.image_path("im0"))
    encoded = runner.encode(image, as_query=True)
    mask, probability = runner.predict(
        runner.fit([encoded], [data.ground_truth("im0", 0)]), encoded, (36, 48)
    )
    assert (mask.shape, mask.dtype, probability.shape, probability.dtype) == ((36, 48), bool, (36, 48), "f4")
    assert (mask == (data.ground_truth("im0", 0) == 1)).mean() > 0.9


def test_missing_images_and_sets_are_named_before_anything_runs(sets):
    drawn, spy = draw_episodes(sets, 1), Spy()
    with pytest.raises(DataError, match="need the set 'two', but there are one"):
        evaluate_suite(spy, sets[:1], drawn)
    sets[1].dataset.image_path("im3").unlink()
    with pytest.raises(DataError, match=r"im3.png of the set two is missing"):
        evaluate_suite(spy, sets, drawn)
    assert not spy.encoded


def test_progress_counts_all_episodes(sets):
    drawn, seen = draw_episodes(sets, 1, draws=1, queries=2), []
    evaluate_suite(Spy(), sets, drawn, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 8) for n in range(1, 9)]
