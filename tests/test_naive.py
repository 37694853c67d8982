"""The network against the plain computation of it in `benchmarks/naive.py`, in numbers and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_data import NUM_BASE_CLASSES, tiny_method

from kshot.models.backbones import Backbone
from kshot.models.kernels.onednn import PointwiseConv2d
from kshot.models.losses import losses
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
    # Fresh fusion weights are the identity, and would hide the base map.
    torch.nn.init.uniform_(method.fusion.conv_a.weight, 0.2, 1)
    torch.nn.init.uniform_(method.fusion.conv_b.weight, 0.2, 1)
    return method


def draw_episodes(batch, shots, size, draw):
    query, images = torch.rand(batch, 3, *size), torch.rand(batch, shots, 3, *size)
    masks = torch.zeros(batch, shots, 1, *size)
    draw(masks)
    return query, images, masks


@pytest.mark.parametrize(
    "number", range(2 * len(MASKS)), ids=lambda n: f"{MASKS[n % len(MASKS)].__name__}-{n}"
)
def test_every_step_of_every_shot_is_the_plain_computations(naive, method, number):
    torch.manual_seed(number)
    draw, size = MASKS[number % len(MASKS)], SIZES[number % len(SIZES)]
    batch, shots = 1 + number % 2, 1 + number % 3
    query, images, masks = draw_episodes(batch, shots, size, draw)
    plain = naive.Naive(method)
    with torch.inference_mode():
        expected = plain.predict(query, images, masks)
        features = method.features(query)
        supports = [
            Support(method.features(image), mask)
            for image, mask in zip(images.unbind(1), masks.unbind(1), strict=True)
        ]
        for support, one in zip(supports, expected, strict=True):
            found = method.match(features, support)
            for step in STEPS:
                torch.testing.assert_close(
                    getattr(found, step), getattr(one, step), rtol=0, atol=1e-4, msg=step
                )
        answer = method.segment(features, supports, size)
        agreement = (answer.mask == plain.vote(expected, size)).float().mean()
    assert agreement > 0.999


@st.composite
def rectangles(draw):
    """Draw an image size, and the corners of one or two rectangles in it, empty ones too."""
    height, width = draw(st.integers(33, 180)), draw(st.integers(33, 180))
    rows, columns = st.integers(0, height), st.integers(0, width)
    return (height, width), draw(st.lists(st.tuples(rows, rows, columns, columns), min_size=1, max_size=2))


@given(rectangles(), st.integers(0, 2**16))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_size_and_any_mask_gives_the_plain_computations_numbers(naive, method, drawn, seed):
    torch.manual_seed(seed)
    size, corners = drawn
    query, images, masks = draw_episodes(1, 1, size, lambda _: None)
    for top, bottom, left, right in corners:
        masks[..., top:bottom, left:right] = 1
    with torch.inference_mode():
        (expected,) = naive.Naive(method).predict(query, images, masks)
        found = method(query, images[:, 0], masks[:, 0])
    for step in STEPS:
        torch.testing.assert_close(getattr(found, step), getattr(expected, step), rtol=0, atol=1e-4, msg=step)


def test_gradients_are_the_plain_computations(naive, method):
    torch.manual_seed(1)
    size = (97, 129)
    query, images, masks = draw_episodes(2, 1, size, two_blobs)
    ground_truth = torch.randint(0, 2, (2, *size))
    episode_class = torch.tensor([1, NUM_BASE_CLASSES - 1])
    plain, maps = naive.Naive(method), []
    for backbone in (method.cls_backbone, method.matcher.sem_backbone):
        maps += [naive.read(backbone, query), naive.read(backbone, images[:, 0])]
    (cls_q, _), (cls_s, _), (sem_q, deepest), (sem_s, _) = maps
    one = plain.match(
        cls_q, cls_s, sem_q, sem_s, masks[:, 0], naive.classify(method.base_head, deepest), episode_class
    )
    method.train()
    found = method(query, images[:, 0], masks[:, 0], episode_class)
    learned = {name: p for name, p in method.named_parameters() if p.requires_grad}
    gradients = []
    for prediction in (found, one):
        total = sum(losses(prediction, ground_truth).values())
        gradients.append(torch.autograd.grad(total, list(learned.values())))
    method.eval()
    for name, ours, theirs in zip(learned, *gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=name)


def test_the_plain_computation_reads_as_timm_does_and_shares_the_weights(naive):
    backbone = Backbone("efficientnet_lite0")
    plain = naive.as_timm_builds_it(backbone)
    assert any(isinstance(module, PointwiseConv2d) for module in backbone.modules())
    assert not any(isinstance(module, PointwiseConv2d) for module in plain.modules())
    assert all(a is b for a, b in zip(backbone.parameters(), plain.parameters(), strict=True))
    images = torch.rand(1, 3, 64, 64)
    for ours, timms in zip(backbone(images).stages, plain(images).stages, strict=True):
        for tap, other in zip(ours, timms, strict=True):
            assert tap.is_contiguous(memory_format=torch.channels_last)
            assert other.is_contiguous()
            torch.testing.assert_close(tap, other, rtol=0, atol=1e-4)
