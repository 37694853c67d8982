import itertools

import pytest
import torch
from make_data import random_pyramid

from kshot.errors import ModelError
from kshot.models.backbones import FeaturePyramid
from kshot.models.hypercorrelation import NORM_EPS, normalize_features, resize, tap_means
from kshot.models.hypercorrelation import correlate as correlations


def correlate(query, support, mask, **options):
    return [
        one.volume()
        for one in correlations(normalize_features(query), normalize_features(support), mask, **options)
    ]


def correlate_one(query, support):
    """Correlate one tap, unmasked: (B, H, W, U, V)."""
    pyramids = [FeaturePyramid(((tap,),) * 3, None) for tap in (query, support)]
    return correlate(*pyramids, torch.ones(len(query), 1, 4, 4))[0][:, 0]


def test_correlation_equals_four_loops():
    query, support = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 2, 3)
    computed = correlate_one(query, support)
    assert computed.shape == (2, 3, 4, 2, 3)
    for b, i, j, k, m in itertools.product(range(2), range(3), range(4), range(2), range(3)):
        q, s = query[b, :, i, j], support[b, :, k, m]
        cosine = (q @ s) / ((q.norm() + NORM_EPS) * (s.norm() + NORM_EPS))
        assert computed[b, i, j, k, m] == pytest.approx(max(cosine.item(), 0), abs=1e-6)
    assert (computed == 0).any()
    assert (computed > 0).any()


def test_normalized_features_can_be_undone():
    pyramid = random_pyramid()
    described = normalize_features(pyramid)
    for unit, features, found in zip(described.unit, pyramid.stages, described.stages(), strict=True):
        for direction, feature, again in zip(unit, features, found, strict=True):
            torch.testing.assert_close(
                direction.norm(dim=-1), torch.ones(direction.shape[:-1]), rtol=0, atol=1e-4
            )
            torch.testing.assert_close(again, feature)


def test_means_are_taken_from_the_features_first():
    pyramid = random_pyramid(batch=3)
    shifted = FeaturePyramid(tuple(tuple(tap + 5 for tap in taps) for taps in pyramid.stages), None)
    means = tap_means(shifted)
    assert means.shape == (sum(tap.shape[1] for taps in pyramid.stages for tap in taps),)
    center_features = normalize_features(shifted, means).stages()
    flat = torch.cat([tap.mean(dim=(0, 2, 3)) for taps in center_features for tap in taps])
    torch.testing.assert_close(flat, torch.zeros_like(flat), rtol=0, atol=1e-5)
    by_hand = pyramid.stages[1][1] - pyramid.stages[1][1].mean(dim=(0, 2, 3), keepdim=True)
    torch.testing.assert_close(center_features[1][1], by_hand, rtol=1e-4, atol=1e-4)
    none = torch.zeros_like(means)
    for bare, found in zip(
        normalize_features(pyramid).unit, normalize_features(pyramid, none).unit, strict=True
    ):
        assert all(torch.equal(one, other) for one, other in zip(bare, found, strict=True))


def test_volumes_are_stacked_per_stage_deepest_first():
    query, support = random_pyramid(), random_pyramid(sizes=((8, 8), (4, 4), (2, 2)))
    volumes = correlate(query, support, torch.ones(2, 1, 32, 32))
    assert [v.shape for v in volumes] == [(2, 1, 3, 3, 2, 2), (2, 3, 5, 5, 4, 4), (2, 2, 9, 10, 8, 8)]
    torch.testing.assert_close(volumes[1][:, 2], correlate_one(query.stages[1][2], support.stages[1][2]))


def test_the_mask_multiplies_the_correlation():
    query, support = random_pyramid(), random_pyramid()
    mask = torch.rand(2, 1, 9, 10)
    bare = correlate(query, support, torch.ones_like(mask))
    masked = correlate(query, support, mask)
    torch.testing.assert_close(masked[2], bare[2] * mask[:, None, None])
    torch.testing.assert_close(masked[0], bare[0] * resize(mask, (3, 3))[:, None, None])


@pytest.mark.parametrize("position", ["after", "before"])
def test_several_masks_are_a_larger_batch(position):
    query, support, masks = random_pyramid(), random_pyramid(), torch.rand(2, 3, 9, 10)
    together = correlate(query, support, masks, mask_position=position)
    for number in range(3):
        alone = correlate(query, support, masks[:, number : number + 1], mask_position=position)
        for volume, one in zip(together, alone, strict=True):
            torch.testing.assert_close(volume[number::3], one)


def test_before_the_norm_the_mask_multiplies_features():
    query, support = random_pyramid(), random_pyramid()
    mask = torch.rand(2, 1, 9, 10)
    found = correlate(query, support, mask, mask_position="before")[2]
    for tap, (q, s) in enumerate(zip(query.stages[0], support.stages[0], strict=True)):
        torch.testing.assert_close(found[:, tap], correlate_one(q, s * mask))


def test_a_soft_mask_counts_only_after_normalisation():
    query, support = random_pyramid(), random_pyramid()
    ones = torch.ones(2, 1, 9, 10)
    after, before = (
        [(correlate(query, support, scale * ones, mask_position=position)[2]).sum() for scale in (1, 0.01)]
        for position in ("after", "before")
    )
    assert after[1] / after[0] == pytest.approx(0.01, rel=1e-5)
    assert before[1] / before[0] > 0.999  # the norm cancels the mask, as it does in the printed equations


def test_the_gradient_of_the_mask_lives_only_after_normalisation():
    query, support = random_pyramid(), random_pyramid()
    gradients = {}
    for position in ("after", "before"):
        mask = torch.full((2, 1, 9, 10), 0.5, requires_grad=True)
        volumes = correlate(query, support, mask, mask_position=position)
        sum(volume.sum() for volume in volumes).backward()
        gradients[position] = mask.grad.abs().sum()
    assert gradients["after"] > 1000 * gradients["before"] > 0


def test_both_mask_positions_agree_on_a_hard_mask():
    query, support = random_pyramid(), random_pyramid()
    mask = torch.zeros(2, 1, 9, 10)
    mask[..., :5, :4] = 1
    after, before = (
        correlate(query, support, mask, mask_position=position)[2] for position in ("after", "before")
    )
    torch.testing.assert_close(after, before)


def test_features_that_would_learn_are_refused():
    learning = random_pyramid()
    learning.stages[1][0].requires_grad_()
    for pair in ((learning, random_pyramid()), (random_pyramid(), learning)):
        with pytest.raises(ModelError, match="frozen backbones only"):
            correlate(*pair, torch.ones(2, 1, 9, 10))


def test_all_zero_features_correlate_with_nothing():
    computed = correlate_one(torch.zeros(1, 4, 2, 2), torch.randn(1, 4, 2, 2))
    assert (computed == 0).all()
