import pytest
import torch
import torch.nn.functional as F
from make_data import TINY, randomise_norms

from kshot.models import kernels
from kshot.models.base_learner import PSPNet, PyramidPoolingHead, base_map
from kshot.models.kernels.pooling import convolve_resized


def test_the_base_map_sums_all_classes_but_the_background():
    logits = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(base_map(logits), 1 - logits.softmax(1)[:, :1])


def test_the_base_map_leaves_out_each_episodes_own_class():
    logits = torch.randn(2, 4, 3, 3)
    probabilities = logits.softmax(1)
    left = base_map(logits, torch.tensor([0, 2]))
    torch.testing.assert_close(left[0, 0], probabilities[0, 2] + probabilities[0, 3])
    torch.testing.assert_close(left[1, 0], probabilities[1, 1] + probabilities[1, 2])
    certain = torch.full((1, 4, 2, 2), -50.0)
    certain[:, 3] = 50.0  # the target itself, seen with certainty
    assert base_map(certain, torch.tensor([2])).max() < 1e-30


def test_the_head_is_pspnets():
    head = PyramidPoolingHead(2048, 16)
    assert head.classify[0].in_channels == 4096
    assert head.classify[0].out_channels == 512
    assert [pool[0].output_size for pool in head.pools] == [1, 2, 3, 6]
    assert head(torch.randn(1, 2048, 5, 6)).shape == (1, 16, 5, 6)


def test_a_frozen_pspnet_ignores_train():
    frozen = PSPNet(TINY, 3).train()
    assert not frozen.head.training
    assert not frozen.backbone.training
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(frozen(images), frozen(images), rtol=0, atol=0)  # no dropout, no batch norm
    assert not frozen(images).requires_grad


@pytest.mark.parametrize("size", [(64, 64), (33, 57), (1, 1)])
def test_logits_have_stride_8(size):
    network = PSPNet(TINY, 3)
    randomise_norms(network)
    assert network(torch.rand(1, 3, *size)).shape == (1, 4, -(-size[0] // 8), -(-size[1] // 8))


def test_a_trainable_pspnet_trains_every_weight():
    network = PSPNet(TINY, 3, learns="all").train()
    network(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_class_that_the_base_learner_does_not_know_is_left_out_of_nothing():
    logits = torch.randn(2, 4, 3, 3)
    unknown = base_map(logits, torch.tensor([-1, 1]))
    torch.testing.assert_close(unknown[0], base_map(logits)[0])
    assert (unknown[1] < base_map(logits)[1]).all()


def test_the_head_alone_can_learn():
    network = PSPNet(TINY, 3, learns="head").train()
    assert network.head.training
    assert not network.backbone.training
    network(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is None for p in network.backbone.parameters())
    assert all(p.grad is not None for p in network.head.parameters())


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize(
    ("bins", "size"), [((1, 1), (7, 5)), ((3, 6), (13, 9)), ((6, 6), (2, 4)), ((2, 3), (2, 3))]
)
def test_resizing_and_convolving_in_one(bins, size, kernel_size):
    maps = torch.randn(2, 4, *bins, dtype=torch.double, requires_grad=True)
    kernel = torch.randn(3, 4, kernel_size, kernel_size, dtype=torch.double, requires_grad=True)
    large = F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
    expected = F.conv2d(large, kernel, padding=kernel_size // 2)
    found = convolve_resized(maps, kernel, torch.Size(size))
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    for a, b in zip(
        *(torch.autograd.grad((y * weights).sum(), (maps, kernel)) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_the_head_concatenates_what_it_pools():
    head = PyramidPoolingHead(16, 5)
    randomise_norms(head)
    features = torch.randn(2, 16, 11, 8)
    pooled = [
        F.interpolate(pool(features), size=(11, 8), mode="bilinear", align_corners=True)
        for pool in head.pools
    ]
    expected = head.classify(torch.cat([features, *pooled], dim=1))
    torch.testing.assert_close(head(features), expected, rtol=1e-4, atol=1e-5)
    with kernels.disabled():
        assert torch.equal(head(features), expected)
