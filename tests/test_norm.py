import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kshot.models.kernels.norm import norm_relu

SIZES = [(2, 16, 5, 4, 3, 2), (1, 16, 33, 40, 9, 9), (3, 32, 4, 4, 1, 1), (2, 64, 3, 5, 2, 2)]


def volume_and_norm(size, dtype, weights=torch.float32):
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, size[1], dtype=weights)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return (3 + 2 * torch.randn(size, dtype=torch.float64)).to(dtype).requires_grad_(), norm


def plain(volume, norm):
    return F.relu(norm(volume))


def gradients(function, volume, norm, gradient):
    result = function(volume, norm)
    return result, *torch.autograd.grad(result, (volume, norm.weight, norm.bias), gradient)


def gradient_away_from_kinks(volume, norm):
    """Draw a gradient that is 0 where a value is almost 0, because ReLU's gradient is undefined there."""
    return torch.randn(volume.shape) * (norm(volume.detach().to(norm.weight.dtype)).abs() > 0.05)


@pytest.mark.parametrize("size", SIZES)
def test_equals_group_norm_and_relu_with_their_gradients(size):
    volume, norm = volume_and_norm(size, torch.float32)
    exact = nn.GroupNorm(4, size[1], dtype=torch.float64)
    exact.load_state_dict(norm.state_dict())
    gradient = gradient_away_from_kinks(volume, norm)
    ours = gradients(norm_relu, volume, norm, gradient)
    theirs = gradients(plain, volume.detach().double().requires_grad_(), exact, gradient.double())
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.double(), their, rtol=1e-4, atol=1e-5 * their.abs().max().item())


def test_in_half_precision_it_sums_in_full():
    volume, norm = volume_and_norm(SIZES[1], torch.bfloat16)
    gradient = gradient_away_from_kinks(volume, norm).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result, d_volume, *sums = gradients(norm_relu, volume, norm, gradient)
    exact = gradients(plain, volume.detach().float().requires_grad_(), norm, gradient.float())
    assert result.dtype == d_volume.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), exact[0], rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(d_volume.float(), exact[1], rtol=2**-6, atol=2**-6)
    for our, their in zip(sums, exact[2:], strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-3 * their.abs().max().item())


def test_no_gradient_is_asked_for_without_training():
    volume, norm = volume_and_norm(SIZES[0], torch.float32)
    with torch.no_grad():
        result = norm_relu(volume, norm)
    assert not result.requires_grad
    torch.testing.assert_close(result, plain(volume, norm))
