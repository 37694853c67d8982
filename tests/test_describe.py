import pytest

from kshot.cli.info import describe, to_text
from kshot.errors import ModelError


@pytest.mark.parametrize(
    ("method", "backbone", "trainable"),
    [
        ("hsnet", "resnet50", 2_573_794),
        ("hsnet", "resnet101", 2_587_394),
        ("hsnet", "vgg16", 2_570_018),
        ("two-pass", "resnet50", 2_980_711),
        ("two_pass", "resnet101", 2_994_311),
        ("prototype", "efficientnet-lite0", 0),
    ],
)
def test_trainable_parameters_are_the_published_ones(method, backbone, trainable):
    description = describe(method, backbone)
    assert description["trainable_parameters"] == trainable
    assert description["frozen_parameters"] > 1_000_000
    assert f"{trainable:,}" in to_text(description)


def test_taps_are_listed_with_their_strides():
    taps = describe("hsnet", "resnet50")["taps"]
    assert [tap["stride"] for tap in taps] == [8] * 4 + [16] * 6 + [32] * 3
    assert taps[0] == {"stride": 8, "module": "layer2.0.act3", "side": "input"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("magic", "resnet50"), "no method 'magic'. Use one of adaptive, hsnet, prototype, two-pass"),
        (("hsnet", "resnet50", "all"), "backbones: Input should be 'cls', 'sem' or 'both'"),
        (("hsnet", "resnet5"), "'resnet5' does not exist"),
    ],
)
def test_mistakes_are_named(arguments, reason):
    with pytest.raises(ModelError, match=reason):
        describe(*arguments)
