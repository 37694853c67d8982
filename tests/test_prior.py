from itertools import product

import numpy as np
import torch
from make_data import random_pyramid, tiny_backbone, tiny_method
from torch.nn import functional as F

from kshot.methods.hsnet import HSNet
from kshot.methods.two_pass import TwoPass
from kshot.models.hypercorrelation import normalize_features
from kshot.models.prior import FIRST_MAX_STAGE, NUM_MAPS, SCALE, support_prior
from kshot.types import Support


def test_likenesses_are_those_of_loops():
    torch.manual_seed(0)
    query, support = random_pyramid(2, dtype=torch.float64), random_pyramid(2, dtype=torch.float64)
    masks = torch.rand(2, 3, 18, 20, dtype=torch.float64)
    found = support_prior(normalize_features(query), normalize_features(support), masks, (9, 10))
    assert found.shape == (6, NUM_MAPS, 9, 10)
    for image, mask in product(range(2), range(3)):
        expected = []
        for stage in range(3):
            theirs, ours = support.stages[stage][-1][image], query.stages[stage][-1][image]
            inside = F.adaptive_avg_pool2d(masks[image, mask][None], theirs.shape[-2:])[0]
            for likeness in (by_mean, by_nearest)[: 2 if stage >= FIRST_MAX_STAGE else 1]:
                to_object, to_rest = likeness(ours, theirs, inside), likeness(ours, theirs, 1 - inside)
                expected += [to_object, to_object - to_rest]
        resized = [
            F.interpolate(one[None, None], (9, 10), mode="bilinear", align_corners=True)[0, 0]
            for one in expected
        ]
        ours = found[image * 3 + mask]
        torch.testing.assert_close(ours, SCALE * torch.stack(resized), rtol=1e-3, atol=1e-3)


def by_mean(ours, theirs, weights):
    prototype = (weights * theirs).sum(dim=(-2, -1))
    return F.cosine_similarity(ours, prototype[:, None, None], dim=0)


def by_nearest(ours, theirs, weights):
    best = torch.zeros(ours.shape[1:], dtype=ours.dtype)
    for (h, w), (u, v) in product(np.ndindex(*best.shape), np.ndindex(*weights.shape)):
        likeness = (1 + F.cosine_similarity(ours[:, h, w], theirs[:, u, v], dim=0)) / 2
        best[h, w] = max(best[h, w], likeness * weights[u, v] / weights.max())
    return best


def test_a_mask_that_leaves_nothing_gives_zeros_and_soft_masks_learn():
    query, support = random_pyramid(1), random_pyramid(1)
    masks = torch.zeros(1, 1, 9, 10, requires_grad=True)
    found = support_prior(normalize_features(query), normalize_features(support), masks, (9, 10))
    assert (found[:, [0, 2, 4, 6, 8]] == 0).all()
    found.sum().backward()
    assert masks.grad.isfinite().all()
    assert masks.grad.any()


def test_a_network_with_a_fresh_prior_is_the_one_without_it():
    torch.manual_seed(0)
    plain = HSNet(tiny_backbone()).eval()
    with_prior = HSNet(tiny_backbone(), prior=True).eval()
    with_prior.load_state_dict(plain.state_dict(), strict=False)
    images, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    mask[..., 10:40, 10:40] = 1
    torch.testing.assert_close(with_prior(images, images, mask).final, plain(images, images, mask).final)
    torch.nn.init.normal_(with_prior.prior.weight)
    assert not torch.allclose(with_prior(images, images, mask).final, plain(images, images, mask).final)


def test_the_second_pass_has_the_querys_own_likenesses():
    one = tiny_method("two-pass")
    method = TwoPass(one.cls_backbone, one.sem_backbone, one.base_head, prior=True).eval()
    torch.nn.init.normal_(method.matcher.prior.weight)
    images, mask = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[..., 10:40, 10:40] = 1
    features = method.features(images)
    alone = method.match(features, Support(features, mask))
    twice = method.match_each(features, [Support(features, mask), Support(features, 1 - mask)])
    torch.testing.assert_close(twice[0].second, alone.second)  # masks of one support are not mixed up
    assert not torch.allclose(twice[0].second, twice[1].second)
