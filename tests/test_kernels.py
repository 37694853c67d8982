"""The kernels against the plain computation: the whole method, in values and all gradients."""

import copy
import operator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_data import NUM_BASE_CLASSES, tiny_method
from torch import nn

import kshot.models.base_learner
import kshot.models.encoder
from kshot.models import kernels
from kshot.models.backbones import Backbone
from kshot.models.kernels.onednn import DilatedDepthwiseConv2d, PointwiseConv2d
from kshot.models.losses import training_losses
from kshot.types import Support

STEPS = ("cls", "sem", "combined", "second", "final", "base_map")


def square(mask):
    h, w = mask.shape[-2:]
    mask[..., h // 4 : h // 2, w // 4 : 3 * w // 4] = 1


def two_blobs(mask):
    h, w = mask.shape[-2:]
    mask[..., : h // 5, : w // 6] = 1
    mask[..., -h // 6 :, -w // 5 :] = 1


def border_sliver(mask):
    mask[..., -3:] = 1


def single_pixel(mask):
    mask[..., mask.shape[-2] // 3, mask.shape[-1] // 2] = 1


def everything(mask):
    mask[:] = 1


def soft(mask):
    mask[:] = torch.rand(mask.shape) ** 3


MASKS = [square, two_blobs, border_sliver, single_pixel, everything, soft]
SIZES = [(65, 65), (96, 128), (129, 97), (65, 200), (129, 129)]


@pytest.fixture(scope="module")
def method():
    method = tiny_method("two-pass")
    # The initial fusion weights are the identity and would hide the base map.
    torch.nn.init.uniform_(method.fusion.conv_a.weight, 0.2, 1)
    torch.nn.init.uniform_(method.fusion.conv_b.weight, 0.2, 1)
    return method


def draw_episodes(batch, shots, size, draw):
    query, images = torch.rand(batch, 3, *size), torch.rand(batch, shots, 3, *size)
    masks = torch.zeros(batch, shots, 1, *size)
    draw(masks)
    return query, images, masks


def predict(method, query, images, masks):
    """Predict with each shot, and segment."""
    features = method.features(query)
    supports = [
        Support(method.features(image), mask)
        for image, mask in zip(images.unbind(1), masks.unbind(1), strict=True)
    ]
    segmentation = method.segment(features, supports, tuple(query.shape[-2:]))
    return method.match_each(features, supports), segmentation.mask


def assert_same_steps(found, expected):
    for step in STEPS:
        torch.testing.assert_close(getattr(found, step), getattr(expected, step), rtol=0, atol=1e-4, msg=step)


@pytest.mark.parametrize(
    "number", range(2 * len(MASKS)), ids=lambda n: f"{MASKS[n % len(MASKS)].__name__}-{n}"
)
def test_every_step_of_every_shot_is_the_plain_computations(method, number):
    torch.manual_seed(number)
    draw, size = MASKS[number % len(MASKS)], SIZES[number % len(SIZES)]
    batch, shots = 1 + number % 2, 1 + number % 3
    episode = draw_episodes(batch, shots, size, draw)
    with torch.inference_mode():
        found, mask = predict(method, *episode)
        with kernels.disabled():
            expected, plain_mask = predict(method, *episode)
    for one, other in zip(found, expected, strict=True):
        assert_same_steps(one, other)
    assert (mask == plain_mask).float().mean() > 0.999


@st.composite
def rectangles(draw):
    """Draw an image size, and the corners of one or two rectangles in it, empty ones too."""
    height, width = draw(st.integers(33, 180)), draw(st.integers(33, 180))
    rows, columns = st.integers(0, height), st.integers(0, width)
    return (height, width), draw(st.lists(st.tuples(rows, rows, columns, columns), min_size=1, max_size=2))


@given(rectangles(), st.integers(0, 2**16))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_size_and_any_mask_gives_the_plain_computations_numbers(method, drawn, seed):
    torch.manual_seed(seed)
    size, corners = drawn
    query, images, masks = draw_episodes(1, 1, size, lambda _: None)
    for top, bottom, left, right in corners:
        masks[..., top:bottom, left:right] = 1
    with torch.inference_mode():
        found = method(query, images[:, 0], masks[:, 0])
        with kernels.disabled():
            expected = method(query, images[:, 0], masks[:, 0])
    assert_same_steps(found, expected)


def test_gradients_are_the_plain_computations(method):
    torch.manual_seed(1)
    size = (97, 129)
    query, images, masks = draw_episodes(2, 1, size, two_blobs)
    ground_truth = torch.randint(0, 2, (2, *size))
    episode_class = torch.tensor([1, NUM_BASE_CLASSES - 1])
    learned = {name: p for name, p in method.named_parameters() if p.requires_grad}

    def gradients():
        prediction = method(query, images[:, 0], masks[:, 0], episode_class)
        total = sum(training_losses(prediction, ground_truth).values())
        return torch.autograd.grad(total, list(learned.values()))

    method.train()
    found = gradients()
    with kernels.disabled():
        expected = gradients()
    method.eval()
    for name, one, other in zip(learned, found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=name)


KERNELS = ("conv4d.matching.center_pivot", "encoder.norm_relu", "base_learner.convolve_pooled")


def test_the_switch_reaches_every_kernel(method, monkeypatch):
    used = []
    for name in KERNELS:
        kernel = operator.attrgetter(name)(kshot.models)
        monkeypatch.setattr(
            f"kshot.models.{name}",
            lambda *args, name=name, kernel=kernel: used.append(name) or kernel(*args),
        )
    query, images, masks = draw_episodes(1, 1, (65, 65), square)
    with kernels.disabled():
        method(query, images[:, 0], masks[:, 0])
        assert not kernels.enabled()
    assert used == []
    method(query, images[:, 0], masks[:, 0])
    assert set(used) == set(KERNELS)


@pytest.mark.parametrize("output_stride", [32, 8])
def test_a_plain_backbone_computes_as_timm_builds_it(output_stride):
    backbone = Backbone("efficientnet_lite0", output_stride=output_stride)
    as_built = copy.deepcopy(backbone)
    for module in as_built.modules():
        if isinstance(module, PointwiseConv2d | DilatedDepthwiseConv2d):
            module.__class__ = nn.Conv2d
    images = torch.rand(1, 3, 97, 97)
    with kernels.disabled():
        plain, support = backbone(images), backbone.support_pyramid(images)
        expected = as_built(images)
    for stage, tapped, pooled, fast in zip(
        expected.stages, plain.stages, support.stages, backbone(images).stages, strict=True
    ):
        for tap, one, of_support, kernel in zip(stage, tapped, pooled, fast, strict=True):
            assert torch.equal(one, tap)
            assert torch.equal(of_support, tap)  # never undilated
            assert one.is_contiguous()
            assert kernel.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(kernel, tap, rtol=0, atol=1e-4)
