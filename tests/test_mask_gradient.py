import pytest
import torch
from torch.nn import functional as F

from kshot.network.mask_gradient import masked_support_conv


def plain(correlation_BXCUV, mask_BUV, kernel, bias, stride):
    b, x, c, u, v = correlation_BXCUV.shape
    images = (correlation_BXCUV * mask_BUV[:, None, None]).reshape(b * x, c, u, v)
    convolved = F.conv2d(images, kernel, bias, stride, kernel.shape[-1] // 2)
    return convolved.view(b, x, convolved.shape[1], -1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("support", [(9, 7), (3, 3), (1, 2)])
def test_values_and_gradients_are_the_plain_convolutions(stride, kernel_size, support):
    correlation = torch.rand(2, 6, 3, *support, dtype=torch.float64)
    rows = correlation.permute(0, 3, 4, 2, 1).contiguous()
    leaves = [
        torch.rand(2, *support, dtype=torch.float64),
        torch.randn(4, 3, kernel_size, kernel_size, dtype=torch.float64),
        torch.randn(4, dtype=torch.float64),
    ]
    results, gradients = [], []
    for convolve in (
        lambda *given: masked_support_conv(correlation, rows, *given, stride),
        lambda *given: plain(correlation, *given, stride),
    ):
        fresh = [leaf.clone().requires_grad_() for leaf in leaves]
        result = convolve(*fresh)
        torch.manual_seed(3)
        (result * torch.randn(result.shape, dtype=torch.float64)).sum().backward()
        results.append(result)
        gradients.append([leaf.grad for leaf in fresh])
    torch.testing.assert_close(*results)
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # sums are kept in single precision


def test_a_query_that_is_its_own_support_needs_no_second_copy():
    features = F.normalize(torch.randn(2, 3, 8, 25), dim=2)
    cosine_BLXU = torch.einsum("blcx,blcu->blxu", features, features).relu()
    memory = cosine_BLXU.permute(0, 2, 1, 3).contiguous()  # (B, X, L, UV)
    correlation, rows = memory.view(2, 25, 3, 5, 5), memory.view(2, 5, 5, 3, 25)
    torch.testing.assert_close(rows, correlation.permute(0, 3, 4, 2, 1))
