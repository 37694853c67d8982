"""The fused convolution of a correlation, against the plain one, in values and all gradients."""

import pytest
import torch

from kshot.models import kernels
from kshot.models.conv4d import CenterPivotConv4d
from kshot.models.hypercorrelation import Correlation
from kshot.models.kernels import matching
from kshot.models.kernels.matching import Box, Span, mask_box


def draw_correlation(support, masks, *, taps=(4, 6), query=(4, 5), batch=2):
    """Draw features of two taps with different numbers of channels; `masks` draws (B, K, 1, U, V)."""
    features = [
        tuple(torch.randn(batch, *size, c, dtype=torch.float64) for c in taps) for size in (query, support)
    ]
    return Correlation(*features, masks(batch, *support))


def one_pixel(batch, u, v):
    masks = torch.zeros(batch, 1, 1, u, v, dtype=torch.float64)
    masks[0, ..., u // 2, v - 1] = 1
    masks[-1, ..., 0, 0] = 0.5
    return masks


def two_blobs(batch, u, v):
    masks = torch.zeros(batch, 1, 1, u, v, dtype=torch.float64)
    masks[..., : u // 3, : v // 3] = 1
    masks[..., u - 1 :, v // 2 :] = 0.7
    return masks


def one_is_empty(batch, u, v):
    masks = torch.ones(batch, 1, 1, u, v, dtype=torch.float64)
    masks[0] = 0
    return masks


def two_masks(batch, u, v):
    masks = torch.rand(batch, 2, 1, u, v, dtype=torch.float64)
    return masks * (masks > 0.6)


def masks_of_taps(batch, u, v):
    return torch.rand(batch, 1, 2, u, v, dtype=torch.float64)


MASKS = (one_pixel, two_blobs, one_is_empty, two_masks, masks_of_taps)
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


def values_and_gradients(conv, volume, stride, masks):
    result = conv(volume, stride)
    torch.manual_seed(3)
    target = torch.randn(result.shape, dtype=torch.float64)
    leaves = [*conv.parameters(), *([masks] if masks.requires_grad else [])]
    return [result, *torch.autograd.grad((result * target).sum(), leaves)]


@pytest.mark.parametrize(("support", "stride", "kernel_size"), CASES)
@pytest.mark.parametrize("number", range(len(MASKS)), ids=lambda n: MASKS[n].__name__)
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("chunk", [1, 300])
def test_a_correlation_convolves_as_its_volume(
    support, stride, kernel_size, number, learns, chunk, monkeypatch
):
    monkeypatch.setitem(matching.CHUNK_SIZE, "cpu", chunk)
    torch.manual_seed(number)
    conv = CenterPivotConv4d(2, 3, kernel_size).double()
    correlation = draw_correlation(support, MASKS[number])
    masks = correlation.masks.requires_grad_(learns)  # at zero too it has a gradient
    found = values_and_gradients(conv, correlation, stride, masks)
    with kernels.disabled():
        expected = values_and_gradients(conv, correlation, stride, masks)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_stays_half_and_close():
    conv = CenterPivotConv4d(2, 3, 5)
    query, support, masks = draw_correlation((9, 9), two_masks)
    correlation = Correlation(
        *(
            tuple(torch.nn.functional.normalize(tap.float(), dim=-1) for tap in taps)
            for taps in (query, support)
        ),
        masks.float().requires_grad_(),
    )
    exact = values_and_gradients(conv, correlation, (4, 4), correlation.masks)
    with torch.autocast("cpu", torch.bfloat16):
        half = values_and_gradients(conv, correlation, (4, 4), correlation.masks)
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
            assert list(range(of))[span.kept.start * stride : last : stride] == [
                n for n in range(first, last) if n % stride == 0
            ]


def test_a_box_contains_all_that_a_mask_marks():
    masks = torch.zeros(3, 2, 1, 6, 7)
    masks[0, 0, 0, 2, 3] = masks[0, 1, 0, 4, 1] = 0.1
    masks[1] = 1
    assert [mask_box(one) for one in masks] == [Box(2, 5, 1, 4), Box(0, 6, 0, 7), Box(0, 1, 0, 1)]
    assert mask_box(masks[2].requires_grad_()) == Box(0, 6, 0, 7)
