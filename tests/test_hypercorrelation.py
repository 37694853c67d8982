import itertools

import pytest
import torch
from make_data import random_pyramid

from kshot.network.hypercorrelation import NORM_EPS, correlation, resize
from kshot.network.hypercorrelation import hypercorrelation as masked_volumes


def hypercorrelation(*given, **options):
    return [volume.product() for volume in masked_volumes(*given, **options)]


def test_correlation_equals_four_loops():
    query, support = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 2, 3)
    computed = correlation(query, support)
    assert computed.shape == (2, 2, 3, 3, 4)
    for b, i, j, k, m in itertools.product(range(2), range(3), range(4), range(2), range(3)):
        q, s = query[b, :, i, j], support[b, :, k, m]
        cosine = (q @ s) / ((q.norm() + NORM_EPS) * (s.norm() + NORM_EPS))
        assert computed[b, k, m, i, j] == pytest.approx(max(cosine.item(), 0), abs=1e-6)
    assert (computed == 0).any()
    assert (computed > 0).any()


def test_volumes_are_stacked_per_stage_deepest_first():
    query, support = random_pyramid(), random_pyramid(sizes=((8, 8), (4, 4), (2, 2)))
    volumes = hypercorrelation(query, support, torch.ones(2, 1, 32, 32))
    assert [v.shape for v in volumes] == [(2, 1, 2, 2, 3, 3), (2, 3, 4, 4, 5, 5), (2, 2, 8, 8, 9, 10)]
    torch.testing.assert_close(volumes[1][:, 2], correlation(query.stages[1][2], support.stages[1][2]))


def test_the_mask_multiplies_the_correlation():
    query, support = random_pyramid(), random_pyramid()
    mask = torch.rand(2, 1, 9, 10)
    bare = hypercorrelation(query, support, torch.ones_like(mask))
    masked = hypercorrelation(query, support, mask)
    torch.testing.assert_close(masked[2], bare[2] * mask[..., None, None])
    torch.testing.assert_close(masked[0], bare[0] * resize(mask, (3, 3))[..., None, None])


def test_a_soft_mask_counts_only_after_normalisation():
    query, support = random_pyramid(), random_pyramid()
    ones = torch.ones(2, 1, 9, 10)
    after, before = (
        [
            (hypercorrelation(query, support, scale * ones, mask_position=position)[2]).sum()
            for scale in (1, 0.01)
        ]
        for position in ("after", "before")
    )
    assert after[1] / after[0] == pytest.approx(0.01, rel=1e-5)
    assert before[1] / before[0] > 0.999  # the norm cancels the mask, as it does in the printed equations


def test_the_gradient_of_the_mask_lives_only_after_normalisation():
    query, support = random_pyramid(), random_pyramid()
    gradients = {}
    for position in ("after", "before"):
        mask = torch.full((2, 1, 9, 10), 0.5, requires_grad=True)
        volumes = hypercorrelation(query, support, mask, mask_position=position)
        sum(volume.sum() for volume in volumes).backward()
        gradients[position] = mask.grad.abs().sum()
    assert gradients["after"] > 1000 * gradients["before"] > 0


def test_both_mask_positions_agree_on_a_hard_mask():
    query, support = random_pyramid(), random_pyramid()
    mask = torch.zeros(2, 1, 9, 10)
    mask[..., :5, :4] = 1
    after, before = (
        hypercorrelation(query, support, mask, mask_position=position)[2] for position in ("after", "before")
    )
    torch.testing.assert_close(after, before)


def test_all_zero_features_correlate_with_nothing():
    zero = torch.zeros(1, 4, 2, 2, requires_grad=True)
    computed = correlation(zero, torch.randn(1, 4, 2, 2))
    computed.sum().backward()
    assert (computed == 0).all()
    assert zero.grad.isfinite().all()
