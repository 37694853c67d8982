import pytest
import torch
from test_conv4d import dense_conv4d
from torch.nn import functional as F

from kshot.models import kernels
from kshot.models.encoder import SUPPORT_STRIDES, Encoder, support_strides
from kshot.models.hypercorrelation import Correlation


def random_correlation(support, query=None, taps=1, batch=1, dtype=torch.float32):
    query, support = (
        tuple(
            torch.nn.functional.normalize(torch.randn(batch, *size, 6, dtype=dtype), dim=-1)
            for _ in range(taps)
        )
        for size in (query or support, support)
    )
    return Correlation(query, support, torch.rand(batch, 1, 1, *support[0].shape[1:3], dtype=dtype))


def correlations_for(image_size, taps=(1, 1, 1), batch=1):
    sizes = [[-(-n // stride) for n in image_size] for stride in (32, 16, 8)]
    return [
        random_correlation(size, taps=count, batch=batch)
        for count, size in zip(reversed(taps), sizes, strict=True)
    ]


@pytest.mark.parametrize("size", [12, 13, 15, 16])  # VGG and ResNet at 400, ResNet at 473 and 512 px
def test_strides_are_hsnets_at_the_published_sizes(size):
    expected = [[(stride, stride) for stride in stage] for stage in SUPPORT_STRIDES]
    assert support_strides((size, size)) == expected


@pytest.mark.parametrize("image_size", range(33, 700, 13))
def test_at_least_two_support_positions_survive_in_every_stage(image_size):
    grids = []
    for stride, strides in zip((32, 16, 8), support_strides([-(-image_size // 32)] * 2), strict=True):
        size = -(-image_size // stride)
        for step, _ in strides:
            size = -(-size // step)
        grids.append(size)
    assert len(set(grids)) == 1
    assert grids[0] >= 2
    if image_size > 256:
        assert grids[0] == -(-image_size // 256)  # HSNet's


def test_axes_adapt_independently():
    rows_and_columns = support_strides((13, 2))[0]
    assert rows_and_columns == [(2, 1), (2, 1), (2, 1)]
    assert support_strides((1, 1)) == [
        [(1, 1)] * 3,
        [(2, 2), (1, 1), (1, 1)],
        [(4, 4), (1, 1), (1, 1)],
    ]


def test_one_instance_takes_any_size_and_remembers_none():
    encoder = Encoder((1, 1, 1)).eval()
    first = correlations_for((70, 97))
    expected = encoder(first)
    assert expected.shape == (1, 128, 9, 13)
    for size in [(33, 57), (1, 1), (128, 64)]:
        assert encoder(correlations_for(size)).shape == (1, 128, -(-size[0] // 8), -(-size[1] // 8))
    torch.testing.assert_close(encoder(first), expected, rtol=0, atol=0)


def test_maps_that_round_down_are_matched():
    sizes = [((4, 8), (3, 3)), ((9, 17), (7, 7)), ((19, 35), (14, 14))]
    assert Encoder((1, 1, 1))([random_correlation(*size) for size in sizes]).shape == (1, 128, 14, 14)


def test_query_and_support_may_differ_in_size():
    sizes = [((2, 2), (3, 4)), ((3, 4), (6, 7)), ((6, 8), (11, 14))]
    assert Encoder((1, 1, 1))([random_correlation(*size) for size in sizes]).shape == (1, 128, 11, 14)


def test_a_batch_equals_its_singles():
    encoder = Encoder((2, 1, 3))
    correlations = correlations_for((64, 64), taps=(2, 1, 3), batch=3)
    together = encoder(correlations)
    for index in range(3):
        one = slice(index, index + 1)
        alone = [
            Correlation(tuple(t[one] for t in c.query), tuple(t[one] for t in c.support), c.masks[one])
            for c in correlations
        ]
        torch.testing.assert_close(together[one], encoder(alone), rtol=1e-4, atol=1e-5)


def resize_matrix(source, target):
    """Write bilinear resizing of one axis, corners on corners, as a matrix."""
    matrix = torch.zeros(target, source, dtype=torch.float64)
    for row in range(target):
        position = row * (source - 1) / (target - 1) if target > 1 else 0.0
        low = min(int(position), source - 1)
        high = min(low + 1, source - 1)
        matrix[row, low] += 1 - (position - low)
        matrix[row, high] += position - low
    return matrix


def dense_block(volume, block, strides):
    for conv, norm, stride in zip(block.convs, block.norms, strides, strict=True):
        volume = dense_conv4d(volume, conv, (stride, stride))
        volume = F.group_norm(volume, 4, norm.weight, norm.bias).clamp(min=0)
    return volume


def test_the_encoder_equals_its_dense_composition():
    """Written out from the paper with full 4-D kernels, at a size where HSNet's strides hold."""
    encoder = Encoder((2, 1, 1)).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    sizes = [((2, 3), (9, 9)), ((3, 4), (18, 18)), ((4, 5), (36, 36))]
    correlations = [
        random_correlation(support, query, taps, dtype=torch.float64)
        for taps, (query, support) in zip((1, 1, 2), sizes, strict=True)
    ]
    volumes = [correlation.volume() for correlation in correlations]
    with torch.no_grad():
        squeezed = [
            dense_block(volume, block, strides)
            for volume, block, strides in zip(
                volumes, encoder.squeeze, [(2, 2, 2), (4, 2, 2), (4, 4, 2)], strict=True
            )
        ]
        mixed = squeezed[0]
        for stage, block in zip(squeezed[1:], encoder.mix, strict=True):
            rows = resize_matrix(mixed.shape[2], stage.shape[2])
            columns = resize_matrix(mixed.shape[3], stage.shape[3])
            resized = torch.einsum("ih,jw,bchwuv->bcijuv", rows, columns, mixed)
            mixed = dense_block(resized + stage, block, (1, 1, 1))
        expected = mixed.mean(dim=(4, 5))
        torch.testing.assert_close(encoder(correlations), expected)
        with kernels.disabled():
            torch.testing.assert_close(encoder(correlations), expected)
    assert expected.shape == (1, 128, 4, 5)
