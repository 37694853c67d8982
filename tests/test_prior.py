import torch
from make_data import random_pyramid, tiny_backbone, tiny_method
from torch.nn import functional as F

from kshot.episode import Support
from kshot.methods.hsnet import HSNet
from kshot.methods.two_pass import TwoPass
from kshot.network.hypercorrelation import describe
from kshot.network.prior import prototype_similarity


def test_similarities_are_those_of_a_loop():
    torch.manual_seed(0)
    query, support = random_pyramid(2, dtype=torch.float64), random_pyramid(2, dtype=torch.float64)
    masks = torch.rand(2, 3, 18, 20, dtype=torch.float64)
    found = prototype_similarity(describe(query), describe(support), masks, (9, 10))
    assert found.shape == (6, 6, 9, 10)
    for image in range(2):
        for mask in range(3):
            for stage in range(3):
                theirs, ours = support.stages[stage][-1][image], query.stages[stage][-1][image]
                weight = F.adaptive_avg_pool2d(masks[image, mask][None], theirs.shape[-2:])[0]
                for place, one in enumerate((weight, 1 - weight)):
                    prototype = (one * theirs).sum(dim=(-2, -1))
                    cosine = F.cosine_similarity(ours, prototype[:, None, None], dim=0)
                    expected = F.interpolate(cosine[None, None], (9, 10), mode="bilinear", align_corners=True)
                    mine = found[image * 3 + mask, 2 * stage + place]
                    torch.testing.assert_close(mine, expected[0, 0], rtol=1e-4, atol=1e-4)


def test_a_mask_that_leaves_nothing_gives_zeros_and_soft_masks_learn():
    query, support = random_pyramid(1), random_pyramid(1)
    masks = torch.zeros(1, 1, 9, 10, requires_grad=True)
    found = prototype_similarity(describe(query), describe(support), masks, (9, 10))
    assert (found[:, 0::2] == 0).all()
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


def test_the_second_pass_has_the_querys_own_prototypes():
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
