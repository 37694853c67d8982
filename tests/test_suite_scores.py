import numpy as np
import pytest

from kshot.evaluation.suite_scores import SuiteCounts, iou_by_size, resample_sets


def counts_of(pairs):
    return np.array([(i, u, 1000 - u, 1000 - i) for i, u in pairs])


def made_up():
    """Two sets: the first with tasks 0 and 1, the second with task 2; two draws of each."""
    pairs = [(10, 100), (90, 100), (50, 100), (20, 80), (0, 10), (30, 40), (40, 40), (8, 40), (10, 10)]
    task = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    draw = np.array([0, 0, 1, 0, 0, 1, 0, 1, 1])
    return SuiteCounts(counts_of(pairs), task, draw, np.array([0, 0, 1]))


EXPECTED = [((100 / 200) + 0.5) / 2, ((20 / 90) + 0.75) / 2, (1 + 18 / 50) / 2]


def test_tasks_and_sets_are_scored_as_by_hand():
    one = made_up()
    np.testing.assert_allclose(one.task_iou(), [EXPECTED])
    np.testing.assert_allclose(one.set_iou(one.task_iou()), [[sum(EXPECTED[:2]) / 2, EXPECTED[2]]])


def test_order_of_episodes_changes_nothing():
    one, order = made_up(), np.random.default_rng(0).permutation(9)
    mixed = SuiteCounts(one.counts[order], one.task[order], one.draw[order], one.set_of_task)
    np.testing.assert_allclose(mixed.task_iou(), one.task_iou())


def test_resampled_episodes_stay_in_their_draw():
    samples = made_up().resample_episodes()
    assert samples.shape == (1, 2000, 3)
    # Draw 0 of task 0 gives 0.1, 0.5 or 0.9; draw 1 has one episode, which always comes.
    assert set(np.round(samples[0, :, 0], 6)) == {0.3, 0.5, 0.7}
    middle = (np.isclose(samples[0, :, 0], 0.5)).mean()
    assert middle == pytest.approx(0.5, abs=0.05)


def test_sets_and_then_tasks_are_drawn():
    task_iou = np.array([[0.0, 1.0, 0.5]])
    samples = resample_sets(task_iou, np.array([0, 0, 1]))[0]
    # A drawn first set gives 0, 0.5 or 1 (1/4, 1/2, 1/4), the second always 0.5: variance by hand.
    variance = (1 / 2) * (1 / 8) / 2
    assert samples.mean() == pytest.approx(0.5, abs=0.02)
    assert samples.var() == pytest.approx(variance, rel=0.15)


def test_the_same_method_twice_has_the_same_resamples():
    one = made_up()
    twice = SuiteCounts(np.concatenate([one.counts] * 2, axis=1), one.task, one.draw, one.set_of_task)
    for samples in twice.resample():
        np.testing.assert_array_equal(samples[0], samples[1])


def test_a_single_set_is_resampled_by_episodes():
    one = made_up()
    first = one.task < 2
    alone = SuiteCounts(one.counts[first], one.task[first], one.draw[first], np.array([0, 0]))
    overall, by_set = alone.resample()
    np.testing.assert_array_equal(overall, by_set[..., 0])
    assert overall.std() > 0


def test_bins_of_size_average_images_and_then_tasks():
    counts = counts_of([(10, 100), (90, 100), (50, 100), (0, 0), (7, 10)])
    task = np.array([0, 0, 1, 1, 1])
    share = np.array([0.01, 0.029, 0.0, 0.03, 1.0])
    found = iou_by_size(counts, task, ["a", "a", "b", "c", "d"], share)
    assert found == [(0.0, 0.03, 0.5, 2), (0.03, 0.1, 0.0, 1), (0.1, 0.25, None, 0), (0.25, 1.0, 0.7, 1)]
