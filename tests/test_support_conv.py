import pytest
import torch
from torch.nn import functional as F

from kshot.network.support_conv import support_conv


def plain(volume, kernel, stride, mask=None):
    """Convolve one small support image for each query position."""
    if mask is not None:
        volume = volume * mask[:, None, :, :, None, None]
    b, c, u, v, h, w = volume.shape
    images = volume.permute(0, 4, 5, 1, 2, 3).reshape(b * h * w, c, u, v)
    convolved = F.conv2d(images, kernel, None, stride, kernel.shape[-1] // 2)
    return convolved.view(b, h, w, *convolved.shape[1:]).permute(0, 3, 4, 5, 1, 2)


def leaves(support, kernel_size):
    volume = torch.randn(2, 3, *support, 2, 4, dtype=torch.float64)
    return volume, torch.randn(4, 3, kernel_size, kernel_size, dtype=torch.float64)


def values_and_gradients(convolve, *given):
    fresh = [leaf.clone().requires_grad_() for leaf in given]
    result = convolve(*fresh)
    torch.manual_seed(3)
    (result * torch.randn(result.shape, dtype=torch.float64)).sum().backward()
    return [result, *(leaf.grad for leaf in fresh)]


CASES = pytest.mark.parametrize(
    ("support", "stride", "kernel_size"),
    [
        ((9, 7), (4, 4), 5),
        ((9, 7), (2, 2), 3),
        ((8, 8), (4, 4), 5),
        ((13, 13), (4, 4), 5),
        ((3, 3), (2, 2), 3),
        ((6, 5), (1, 1), 3),
        ((5, 6), (4, 1), 5),
        ((1, 2), (1, 1), 5),
        ((4, 4), (2, 2), 1),
        ((1, 1), (4, 4), 5),
    ],
)


@CASES
def test_values_and_gradients_are_the_plain_convolutions(support, stride, kernel_size):
    given = leaves(support, kernel_size)
    found = values_and_gradients(lambda v, k: support_conv(v, k, stride), *given)
    expected = values_and_gradients(lambda v, k: plain(v, k, stride), *given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@CASES
def test_a_soft_mask_learns(support, stride, kernel_size):
    volume, kernel = leaves(support, kernel_size)
    mask = torch.rand(2, *support, dtype=torch.float64)
    mask[0, 0] = 0  # at zero too it has a gradient
    found = values_and_gradients(lambda k, m: support_conv(volume, k, stride, m), kernel, mask)
    expected = values_and_gradients(lambda k, m: plain(volume, k, stride, m), kernel, mask)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@CASES
@pytest.mark.parametrize("kind", ["corner", "nothing", "everything"])
def test_a_hard_mask_skips_only_what_is_empty(support, stride, kernel_size, kind):
    volume, kernel = leaves(support, kernel_size)
    mask = torch.zeros(2, *support, dtype=torch.float64)
    if kind == "corner":
        mask[0, 0, 0] = 1
        mask[1, -1, -1] = 0.5
    elif kind == "everything":
        mask[:] = 1
    found = values_and_gradients(lambda k: support_conv(volume, k, stride, mask), kernel)
    expected = values_and_gradients(lambda k: plain(volume, k, stride, mask), kernel)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@CASES
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_volume_learns_under_a_mask_too(support, stride, kernel_size, kind):
    volume, kernel = leaves(support, kernel_size)
    mask = torch.rand(2, *support, dtype=torch.float64)
    if kind == "hard":
        mask = (mask > 0.7).double()
    found = values_and_gradients(lambda v, k: support_conv(v, k, stride, mask), volume, kernel)
    expected = values_and_gradients(lambda v, k: plain(v, k, stride, mask), volume, kernel)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_stays_half_and_close():
    volume, kernel = (leaf.float() for leaf in leaves((9, 9), 5))
    exact = support_conv(volume, kernel, (4, 4))
    half = support_conv(volume.bfloat16(), kernel, (4, 4))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.3)
