import pytest
import torch
from torch.nn import functional as F

from kshot.models import conv4d
from kshot.models.conv4d import CenterPivotConv4d, Span
from kshot.models.hypercorrelation import Correlation


def dense_conv4d(volume, conv, stride):
    """Convolve (B, C, U, V, H, W) with a full 4-D kernel that is zero off the centres, offset by offset."""
    k = conv.query_conv.kernel_size[0]
    p = k // 2
    kernel = torch.zeros(*conv.query_conv.weight.shape, k, k, dtype=volume.dtype)
    kernel[..., p, p] += conv.query_conv.weight
    kernel[:, :, p, p] += conv.support_conv.weight
    u, v, h, w = volume.shape[2:]
    padded = F.pad(volume, [p] * 8)
    out = 0
    for i in range(k):
        for j in range(k):
            for m in range(k):
                for n in range(k):
                    window = padded[:, :, m : m + u, n : n + v, i : i + h, j : j + w]
                    window = window[:, :, :: stride[0], :: stride[1]]
                    out = out + torch.einsum("oc,bcuvhw->bouvhw", kernel[:, :, i, j, m, n], window)
    bias = conv.query_conv.bias + conv.support_conv.bias
    return out + bias.view(1, -1, 1, 1, 1, 1)


def channels_last(volume):
    """Move (B, C, U, V, H, W) to the network's order, (B, H, W, U, V, C)."""
    return volume.permute(0, 4, 5, 2, 3, 1)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize("support", [(6, 7), (2, 2), (1, 4), (1, 1)])  # up to four positions are one matrix
def test_centre_pivot_equals_a_dense_convolution_with_a_masked_kernel(kernel_size, stride, support):
    conv = CenterPivotConv4d(2, 3, kernel_size).double()
    volume = torch.randn(2, 2, *support, 4, 5, dtype=torch.float64)
    expected = channels_last(dense_conv4d(volume, conv, stride))
    torch.testing.assert_close(conv(channels_last(volume), stride), expected)


def test_the_stride_rounds_up_and_keeps_the_query_axes():
    conv = CenterPivotConv4d(1, 2, 3)
    assert conv(torch.randn(1, 7, 3, 13, 9, 1), (4, 2)).shape == (1, 7, 3, 4, 5, 2)
    assert conv(torch.randn(1, 7, 3, 1, 1, 1), (4, 4)).shape == (1, 7, 3, 1, 1, 2)


def draw_correlation(support, masks, *, taps=(4, 6), query=(4, 5), batch=2):
    """Draw directions of two taps with different numbers of channels; `masks` draws (B, K, 1, U, V)."""
    features = [
        tuple(torch.randn(batch, *size, c, dtype=torch.float64) for c in taps) for size in (query, support)
    ]
    return Correlation(*features, masks(batch, *support))


def one_pixel(batch, u, v):
    weights = torch.zeros(batch, 1, 1, u, v, dtype=torch.float64)
    weights[0, ..., u // 2, v - 1] = 1
    weights[-1, ..., 0, 0] = 0.5
    return weights


def two_blobs(batch, u, v):
    weights = torch.zeros(batch, 1, 1, u, v, dtype=torch.float64)
    weights[..., : u // 3, : v // 3] = 1
    weights[..., u - 1 :, v // 2 :] = 0.7
    return weights


def one_is_empty(batch, u, v):
    weights = torch.ones(batch, 1, 1, u, v, dtype=torch.float64)
    weights[0] = 0
    return weights


def two_masks(batch, u, v):
    weights = torch.rand(batch, 2, 1, u, v, dtype=torch.float64)
    return weights * (weights > 0.6)


def weights_of_taps(batch, u, v):
    return torch.rand(batch, 1, 2, u, v, dtype=torch.float64)


MASKS = (one_pixel, two_blobs, one_is_empty, two_masks, weights_of_taps)
CASES = [
    ((9, 7), (4, 4), 5),
    ((9, 7), (2, 2), 3),
    ((8, 8), (4, 4), 5),
    ((13, 13), (4, 4), 5),
    ((6, 5), (1, 1), 3),
    ((5, 6), (4, 1), 5),
    ((7, 7), (4, 4), 3),
    ((1, 2), (1, 1), 5),
    ((4, 4), (2, 2), 1),
    ((1, 1), (4, 4), 5),
]


def values_and_gradients(conv, volume, stride, weights):
    result = conv(volume, stride)
    torch.manual_seed(3)
    target = torch.randn(result.shape, dtype=torch.float64)
    leaves = [*conv.parameters(), *([weights] if weights.requires_grad else [])]
    return [result, *torch.autograd.grad((result * target).sum(), leaves)]


@pytest.mark.parametrize(("support", "stride", "kernel_size"), CASES)
@pytest.mark.parametrize("number", range(len(MASKS)), ids=lambda n: MASKS[n].__name__)
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("chunk", [1, 300])
def test_a_correlation_convolves_as_its_volume(
    support, stride, kernel_size, number, learns, chunk, monkeypatch
):
    monkeypatch.setitem(conv4d.CHUNK, "cpu", chunk)
    torch.manual_seed(number)
    conv = CenterPivotConv4d(2, 3, kernel_size).double()
    correlation = draw_correlation(support, MASKS[number])
    weights = correlation.weights.requires_grad_(learns)  # at zero too it has a gradient
    found = values_and_gradients(conv, correlation, stride, weights)
    expected = values_and_gradients(conv, correlation.volume(), stride, weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_stays_half_and_close():
    conv = CenterPivotConv4d(2, 3, 5)
    query, support, weights = draw_correlation((9, 9), two_masks)
    correlation = Correlation(
        *(
            tuple(torch.nn.functional.normalize(tap.float(), dim=-1) for tap in taps)
            for taps in (query, support)
        ),
        weights.float().requires_grad_(),
    )
    exact = values_and_gradients(conv, correlation, (4, 4), correlation.weights)
    with torch.autocast("cpu", torch.bfloat16):
        half = values_and_gradients(conv, correlation, (4, 4), correlation.weights)
    assert half[0].dtype == torch.bfloat16
    for one, other in zip(half, exact, strict=True):
        torch.testing.assert_close(
            one.float(), other.float(), rtol=0.05, atol=0.05 * other.abs().max().item()
        )


@pytest.mark.parametrize("of", [1, 2, 5, 13])
@pytest.mark.parametrize(("kernel_size", "stride"), [(5, 4), (5, 2), (3, 4), (3, 2), (3, 1), (1, 2)])
def test_a_span_names_every_window_that_meets_a_position(of, kernel_size, stride):
    for first in range(0, of, stride):
        for last in range(first + 1, of + 1):
            span = Span(first, last, of, kernel_size, stride)
            under = [
                range(centre - kernel_size // 2, centre + kernel_size // 2 + 1)
                for centre in range(0, of, stride)
            ]
            meet = [n for n, window in enumerate(under) if set(window) & set(range(first, last))]
            begin, end = span.windows
            assert meet == list(range(begin, end))
            assert list(range(of))[span.on_grid.start * stride : last : stride] == [
                n for n in range(first, last) if n % stride == 0
            ]
