import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from make_data import TINY, randomise_norms, tiny_backbone
from torch.nn import functional as F

from kshot.errors import ModelError
from kshot.models.backbones import Backbone, Tap


def resnet_taps_by_hand(trunk, images):
    """Every bottleneck of layers 2 to 4, written out: the sum before the last ReLU."""
    x = F.max_pool2d(F.relu(trunk.bn1(trunk.conv1(images))), 3, 2, 1)
    taps = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        for block in getattr(trunk, name):
            shortcut = x if block.downsample is None else block.downsample(x)
            y = F.relu(block.bn1(block.conv1(x)))
            y = F.relu(block.bn2(block.conv2(y)))
            before_relu = block.bn3(block.conv3(y)) + shortcut
            x = F.relu(before_relu)
            if name != "layer1":
                taps.append(before_relu)
    return taps, x


@pytest.fixture(scope="module")
def resnet50():
    torch.manual_seed(0)
    backbone = Backbone("resnet50")
    randomise_norms(backbone)
    return backbone.double()  # so that a difference is a difference of method, not of rounding


def test_every_resnet_tap_is_signed_and_equals_a_hand_written_loop(resnet50):
    images = torch.rand(1, 3, 97, 130, dtype=torch.float64)
    pyramid = resnet50(images)
    by_hand, last = resnet_taps_by_hand(resnet50.trunk, (images - resnet50.mean) / resnet50.std)
    taps = [tap for stage in pyramid.stages for tap in stage]
    assert len(taps) == len(by_hand) == 13
    for tap, expected in zip(taps, by_hand, strict=True):
        assert (tap < 0).any()
        torch.testing.assert_close(tap, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(pyramid.last, last, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [97, 128, 145])  # the last is, like 401, 17 more than a multiple of 32
def test_dilated_features_sliced_equal_the_undilated_ones(resnet50, size):
    dilated = Backbone("resnet50", output_stride=8)
    dilated.load_state_dict(resnet50.state_dict())
    images = torch.rand(1, 3, size, size, dtype=torch.float64)
    plain, sliced = resnet50(images), dilated.double()(images)
    for plain_stage, sliced_stage in zip(plain.stages, sliced.stages, strict=True):
        for a, b in zip(plain_stage, sliced_stage, strict=True):
            assert (a - b).abs().max() < 1e-5
    assert sliced.last.shape[-1] == -(-size // 8)
    assert plain.last.shape[-1] == -(-size // 32)


@pytest.mark.parametrize(("size", "exact"), [(129, True), (128, False)])
def test_tf_padding_keeps_the_grid_only_at_sizes_of_32n_plus_1(size, exact):
    torch.manual_seed(0)
    plain = Backbone("efficientnet_lite0")
    randomise_norms(plain)
    dilated = Backbone("efficientnet_lite0", output_stride=8)
    dilated.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, size, size, dtype=torch.float64)
    deepest = plain.double()(images).stages[2][-1], dilated.double()(images).stages[2][-1]
    assert (((deepest[0] - deepest[1]).abs().max() / deepest[0].std()) < 1e-5) == exact


@pytest.mark.parametrize(
    ("name", "size", "runs_undilated"),
    [
        ("resnet18", (96, 70), True),
        ("efficientnet_lite0", (129, 97), True),
        ("efficientnet_lite0", (128, 97), False),
        ("test_resnet", (96, 70), False),  # ResNet-D: average pooling in the shortcuts
        ("resnetblur18", (96, 70), False),
        ("seresnet18", (96, 70), False),
        ("test_efficientnet", (129, 97), False),  # squeeze and excitation
    ],
)
def test_supports_are_read_undilated_where_that_is_the_same(name, size, runs_undilated):
    torch.manual_seed(0)
    dilated = Backbone(name, output_stride=8)
    other = Backbone(name)
    randomise_norms(other, seed=2)
    images = torch.rand(1, 3, *size, dtype=torch.float64)
    dilated.support_pyramid(images.float())
    dilated.load_state_dict(other.state_dict())  # weights that change later are the twin's, too
    dilated = copy.deepcopy(dilated).double()
    found, expected = dilated.support_pyramid(images), dilated(images)
    assert (found.last.shape != expected.last.shape) == runs_undilated
    for stage, same in zip(found.stages, expected.stages, strict=True):
        for one, other in zip(stage, same, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_a_twin_is_no_part_of_the_weights():
    dilated, plain = Backbone("resnet18", output_stride=8), Backbone("resnet18")
    dilated.support_pyramid(torch.rand(1, 3, 64, 64))
    assert dilated.state_dict().keys() == plain.state_dict().keys()
    assert sum(p.numel() for p in dilated.parameters()) == sum(p.numel() for p in plain.parameters())


def test_vgg_taps_are_seven_and_equal_a_hand_written_loop():
    torch.manual_seed(0)
    backbone = Backbone("vgg16")
    images = torch.rand(1, 3, 70, 64)
    pyramid = backbone(images)
    by_hand, x = [], (images - backbone.mean) / backbone.std
    for index, layer in enumerate(backbone.trunk.features):
        x = F.relu(x) if isinstance(layer, torch.nn.ReLU) else layer(x)
        if index in (17, 19, 21, 24, 26, 28, 30):
            by_hand.append(x)
    taps = [tap for stage in pyramid.stages for tap in stage]
    assert backbone.taps_per_stage == (3, 3, 1)
    for tap, expected in zip(taps, by_hand, strict=True):
        torch.testing.assert_close(tap, expected)
    assert all((tap < 0).any() for tap in taps[:-1])  # the last is a pool, after the ReLU


@pytest.mark.parametrize(
    ("name", "taps", "first"),
    [
        ("resnet101", (4, 23, 3), Tap("layer2.0.act3", "input")),
        ("resnet18", (2, 2, 2), Tap("layer2.0.act2", "input")),
        ("efficientnet-lite0", (2, 6, 5), Tap("blocks.2.0", "output")),
        ("efficientnet_lite1", (3, 8, 6), Tap("blocks.2.0", "output")),
        ("efficientnet_lite2", (3, 8, 6), Tap("blocks.2.0", "output")),
        ("mobilenetv3_small_100", (2, 5, 4), Tap("blocks.1.0", "output")),
        ("regnety_002", (1, 4, 7), Tap("s2.b1", "output")),
        ("convnext_atto", (2, 6, 2), Tap("stages.1.blocks.0", "output")),
    ],
)
def test_taps_of_each_family_have_strides_8_16_32(name, taps, first):
    backbone = Backbone(name)
    assert backbone.taps_per_stage == taps
    assert backbone.taps[0][0] == first
    pyramid = backbone(torch.rand(1, 3, 128, 160))
    assert [stage[-1].shape[-2:] for stage in pyramid.stages] == [(16, 20), (8, 10), (4, 5)]
    assert pyramid.last.shape[1] == backbone.num_features


@pytest.mark.parametrize("size", [(33, 57), (1, 1), (40, 1), (97, 64)])
def test_maps_are_rounded_up_at_any_size(size):
    pyramid = tiny_backbone()(torch.rand(1, 3, *size))
    for stage, stride in zip(pyramid.stages, (8, 16, 32), strict=True):
        assert stage[0].shape[-2:] == (-(-size[0] // stride), -(-size[1] // stride))


def test_a_frozen_backbone_stays_in_eval_and_has_no_gradients():
    backbone = tiny_backbone().train()
    assert not any(module.training for module in backbone.modules())
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    pyramid = backbone(torch.rand(2, 3, 64, 64, requires_grad=True))
    assert not any(tap.requires_grad for stage in pyramid.stages for tap in stage)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    for key, value in backbone.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_a_trainable_backbone_trains():
    backbone = Backbone(TINY, output_stride=8, trainable=True).train()
    backbone(torch.rand(2, 3, 64, 64)).last.sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert backbone.training
    assert not backbone.eval().training


def test_threads_do_not_mix_their_features():
    backbone = tiny_backbone()
    images = [torch.rand(1, 3, size, size) for size in range(40, 72)]
    alone = [backbone(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(backbone, images))
    for a, b in zip(alone, together, strict=True):
        for tap_a, tap_b in zip(sum(a.stages, ()), sum(b.stages, ()), strict=True):
            torch.testing.assert_close(tap_a, tap_b)


def test_unknown_and_unsuitable_backbones_are_refused():
    with pytest.raises(ModelError, match=r"Backbone 'resnet51' does not exist\. Use one of resnet50"):
        Backbone("resnet51")
    with pytest.raises(ModelError, match="does not accept images of any size"):
        Backbone("vit_tiny_patch16_224")
    with pytest.raises(ModelError, match=r"vgg16\.tv_in1k' cannot run at output stride 8"):
        Backbone("vgg16", output_stride=8)
