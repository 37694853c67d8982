import pytest
import torch
from torch.nn import functional as F

from kshot.models import kernels
from kshot.models.conv4d import CenterPivotConv4d


def dense_conv4d(volume, conv, stride):
    """Convolve (B, C, H, W, U, V) with a full 4-D kernel that is zero off the centers, offset by offset."""
    k = conv.query_conv.kernel_size[0]
    p = k // 2
    kernel = torch.zeros(*conv.query_conv.weight.shape, k, k, dtype=volume.dtype)
    kernel[:, :, :, :, p, p] += conv.query_conv.weight
    kernel[:, :, p, p] += conv.support_conv.weight
    h, w, u, v = volume.shape[2:]
    padded = F.pad(volume, [p] * 8)
    out = 0
    for i in range(k):
        for j in range(k):
            for m in range(k):
                for n in range(k):
                    window = padded[:, :, i : i + h, j : j + w, m : m + u, n : n + v]
                    window = window[..., :: stride[0], :: stride[1]]
                    out = out + torch.einsum("oc,bchwuv->bohwuv", kernel[:, :, i, j, m, n], window)
    bias = conv.query_conv.bias + conv.support_conv.bias
    return out + bias.view(1, -1, 1, 1, 1, 1)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (4, 4), (4, 1)])
@pytest.mark.parametrize("support", [(6, 7), (2, 2), (1, 4), (1, 1)])  # kernels: up to four are one matrix
def test_center_pivot_equals_a_dense_convolution_with_a_masked_kernel(kernel_size, stride, support):
    conv = CenterPivotConv4d(2, 3, kernel_size).double()
    volume = torch.randn(2, 2, 4, 5, *support, dtype=torch.float64)
    expected = dense_conv4d(volume, conv, stride)
    torch.testing.assert_close(conv(volume, stride), expected)
    with kernels.disabled():
        torch.testing.assert_close(conv(volume, stride), expected)


def test_the_stride_rounds_up_and_keeps_the_query_axes():
    conv = CenterPivotConv4d(1, 2, 3)
    assert conv(torch.randn(1, 1, 7, 3, 13, 9), (4, 2)).shape == (1, 2, 7, 3, 4, 5)
    assert conv(torch.randn(1, 1, 7, 3, 1, 1), (4, 4)).shape == (1, 2, 7, 3, 1, 1)
