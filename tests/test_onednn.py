"""Products and 1x1 convolutions that oneDNN computes, against torch's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.profiler import profile

from kshot.models.backbones import Backbone
from kshot.models.kernels.onednn import (
    DilatedDepthwiseConv2d,
    PackedLinear,
    PointwiseConv2d,
    linear,
    use_onednn,
)

LENGTHS = st.integers(1, 40)


@settings(deadline=None, max_examples=50)
@given(LENGTHS, LENGTHS, LENGTHS)
def test_a_product_is_torchs_own(rows, length, others):
    left, right = torch.rand(rows, length), torch.rand(others, length)
    torch.testing.assert_close(PackedLinear(right)(left), left @ right.T)
    torch.testing.assert_close(linear(left, right), F.linear(left, right))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_stay_what_they_are(dtype):
    left, right = torch.rand(3, 8).to(dtype), torch.rand(5, 8).to(dtype)
    assert torch.equal(PackedLinear(right)(left), left @ right.T)
    assert torch.equal(linear(left, right), F.linear(left, right))


def test_rows_that_are_a_part_of_others_are_multiplied_in_place():
    whole, right = torch.rand(7, 2, 8), torch.rand(5, 8)
    torch.testing.assert_close(PackedLinear(right)(whole[2:5, 1]), whole[2:5, 1] @ right.T)
    torch.testing.assert_close(PackedLinear(whole[:, 0])(right), right @ whole[:, 0].T)


def test_a_product_has_torchs_gradient():
    rows, matrix = torch.rand(6, 5).requires_grad_(), torch.rand(4, 5).requires_grad_()
    outer = torch.rand(6, 4)
    ours = torch.autograd.grad((linear(rows, matrix) * outer).sum(), (rows, matrix))
    torchs = torch.autograd.grad((F.linear(rows, matrix) * outer).sum(), (rows, matrix))
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"bias": False}, {"groups": 3}])
def test_a_pointwise_convolution_is_torchs_own(options):
    torchs = nn.Conv2d(6, 9, 1, **options)
    ours = PointwiseConv2d(6, 9, 1, **options)
    ours.load_state_dict(torchs.state_dict())
    images = torch.rand(2, 6, 7, 5)
    torch.testing.assert_close(ours(images), torchs(images))


def test_only_plain_1x1_convolutions_change_and_weights_and_hooks_stay():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1, padding=1), nn.ReLU())
    seen = []
    network[0].register_forward_hook(lambda *_: seen.append(1))
    weight, images = network[0].weight, torch.rand(1, 3, 6, 6)
    before = network(images)
    use_onednn(network)
    kinds = [type(module) for module in network]
    assert kinds == [PointwiseConv2d, nn.Conv2d, nn.Conv2d, nn.ReLU]
    assert network[0].weight is weight
    torch.testing.assert_close(network(images), before)
    assert len(seen) == 2


def test_with_one_thread_onednn_computes_all_of_a_backbone_and_every_product():
    threads, backbone = torch.get_num_threads(), Backbone("resnet50")
    rows = torch.rand(256, 512)  # torch thinks oneDNN too much for small ones

    def names(run):
        with profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            run()
        return {event.key for event in seen.key_averages()}

    torch.set_num_threads(1)
    try:
        read = names(lambda: backbone(torch.rand(1, 3, 225, 225)))
        multiplied = names(lambda: (PackedLinear(rows)(rows), linear(rows, rows)))
    finally:
        torch.set_num_threads(threads)
    assert "aten::mkldnn_convolution" in read
    assert {"aten::mkldnn_linear", "aten::mkldnn_convolution"} <= multiplied
    for left_to_others in ("aten::_slow_conv2d_forward", "aten::mm", "aten::addmm"):
        assert left_to_others not in read | multiplied


def test_a_graph_for_another_engine_is_not_dilated():
    convolution = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False))
    use_onednn(convolution)
    images = torch.rand(1, 3, 5, 5)
    graph = torch.jit.trace(convolution, images).inlined_graph
    (node,) = graph.findAllNodes("aten::_convolution")
    dilation = list(node.inputs())[5].node()
    assert [one.toIValue() for one in dilation.inputs()] == [1, 1]
    exported = torch.export.export(convolution, (images,))
    calls = [node for node in exported.graph.nodes if node.op == "call_function"]
    assert [call.args[5:6] for call in calls] in ([()], [([1, 1],)])


@pytest.mark.parametrize("size", [(7, 7), (8, 5), (3, 2), (9, 12)])
@pytest.mark.parametrize(("dilation", "kernel"), [(2, 5), (4, 3), ((2, 1), (3, 5))])
def test_a_dilated_depthwise_convolution_is_torchs_own(size, dilation, kernel):
    kernel, dilation = (v if isinstance(v, tuple) else (v, v) for v in (kernel, dilation))
    padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel, strict=True))
    plain = nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=6)
    images = torch.randn(2, 6, *size, requires_grad=True)
    expected = plain(images)
    outer = torch.randn_like(expected)
    inputs = [images, *plain.parameters()]
    gradients = torch.autograd.grad(expected, inputs, outer)
    network = nn.Sequential(plain)
    use_onednn(network)
    assert type(network[0]) is DilatedDepthwiseConv2d
    found = network(images)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found, [images, *plain.parameters()], outer), gradients, strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_other_convolutions_are_left_alone():
    kept = [
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6, stride=2),
        nn.Conv2d(6, 6, 3, padding=1, dilation=2, groups=6),
    ]
    use_onednn(nn.Sequential(*kept))
    assert all(type(conv) is nn.Conv2d for conv in kept)
