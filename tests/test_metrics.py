import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryJaccardIndex

from kshot.evaluation.metrics import NUM_RESAMPLES, Counts, bootstrap, count_pixels, interval, score_episodes


def random_case(random):
    """A prediction and a ground truth; often empty, full, or full of 255."""
    height, width = random.integers(1, 12, 2)
    prediction = random.random((height, width)) < random.choice([0, 0.2, 0.5, 1])
    ground_truth = (random.random((height, width)) < random.choice([0, 0.3, 1])).astype(np.uint8)
    ground_truth[random.random((height, width)) < random.choice([0, 0.2, 0.9])] = 255
    return prediction, ground_truth


def test_iou_is_torchmetrics_on_a_thousand_cases():
    random = np.random.default_rng(0)
    cases = [random_case(random) for _ in range(1000)]
    assert sum(not p.any() for p, _ in cases) > 100
    assert sum(not (t == 1).any() for _, t in cases) > 100
    for prediction, ground_truth in cases:
        foreground = BinaryJaccardIndex(ignore_index=255, zero_division=0)
        background = BinaryJaccardIndex(ignore_index=255, zero_division=0)
        flipped = np.where(ground_truth == 255, 255, 1 - ground_truth)
        expected = (
            foreground(torch.tensor(prediction), torch.tensor(ground_truth, dtype=torch.long)),
            background(torch.tensor(~prediction), torch.tensor(flipped, dtype=torch.long)),
        )
        counts = np.array([count_pixels(prediction, ground_truth)])
        scores = score_episodes(counts, np.array([0]), [0])
        assert scores.miou == pytest.approx(float(expected[0]), abs=1e-6)
        assert scores.fb_iou == pytest.approx(float(sum(expected)) / 2, abs=1e-6)


def test_sums_over_episodes_are_torchmetrics_too():
    random = np.random.default_rng(1)
    cases = [(int(random.integers(0, 3)), *random_case(random)) for _ in range(200)]
    oracles = {c: BinaryJaccardIndex(ignore_index=255, zero_division=0) for c in range(4)}
    for c, prediction, ground_truth in cases:
        oracles[c].update(torch.tensor(prediction), torch.tensor(ground_truth, dtype=torch.long))
    counts = np.array([count_pixels(p, t) for _, p, t in cases])
    scores = score_episodes(counts, np.array([c for c, _, _ in cases]), range(4))
    for c in range(3):
        assert scores.class_iou[c] == pytest.approx(float(oracles[c].compute()), abs=1e-6)
    assert scores.class_iou[3] == 0  # never drawn
    assert scores.miou == pytest.approx(sum(float(oracles[c].compute()) for c in range(3)) / 4, abs=1e-6)


def test_a_hand_calculation():
    prediction = np.array([[True, True, False, True]])
    ground_truth = np.array([[1, 0, 1, 255]], dtype=np.uint8)
    assert count_pixels(prediction, ground_truth) == Counts(1, 3, 0, 2)
    two = np.array([[1, 3, 0, 2], [4, 5, 5, 6]])
    scores = score_episodes(two, np.array([0, 1]), [0, 1])
    assert scores.miou == pytest.approx((1 / 3 + 4 / 5) / 2)
    assert scores.fb_iou == pytest.approx((5 / 8 + 5 / 8) / 2)


def random_counts(number, seed=0):
    random = np.random.default_rng(seed)
    intersection, background = random.integers(0, 50, number), random.integers(100, 200, number)
    misses = random.integers(1, 60, number)
    return np.stack([intersection, intersection + misses, background, background + misses], axis=1)


def test_the_bootstrap_keeps_classes_and_covers_the_score():
    counts, class_ids = random_counts(300), np.arange(300) % 3
    samples = bootstrap(counts, class_ids, [0, 1, 2])
    assert samples.shape == (NUM_RESAMPLES, 5)
    scores = score_episodes(counts, class_ids, [0, 1, 2])
    for column, value in enumerate([scores.miou, scores.fb_iou, *scores.class_iou.values()]):
        low, high = interval(samples[:, column])
        assert low < value < high
    np.testing.assert_allclose(samples[:, 0], samples[:, 2:].mean(axis=1))
    np.testing.assert_array_equal(samples, bootstrap(counts, class_ids, [0, 1, 2]))


def test_the_interval_covers_the_true_value_at_its_nominal_rate():
    ground_truth = score_episodes(random_counts(200_000, seed=1), np.zeros(200_000, dtype=int), [0]).miou
    covered = 0
    for seed in range(200):
        counts = random_counts(100, seed=seed + 2)
        low, high = interval(bootstrap(counts, np.zeros(100, dtype=int), [0], seed=seed)[:, 0])
        covered += low <= ground_truth <= high
    assert 180 <= covered <= 199  # 95 % of 200 is 190


def test_a_pair_is_resampled_together():
    counts, class_ids = random_counts(60), np.arange(60) % 2
    both = bootstrap(np.concatenate([counts, counts], axis=1), class_ids, [0, 1])
    np.testing.assert_array_equal(both[0], both[1])
    np.testing.assert_array_equal(both[0], bootstrap(counts, class_ids, [0, 1]))


def test_a_class_without_episodes_is_0_in_every_resample():
    samples = bootstrap(random_counts(10), np.zeros(10, dtype=int), [0, 1])
    assert (samples[:, 3] == 0).all()
