"""The center-pivot 4-D convolution (Min et al. 2021, section 4.2)."""

from torch import Tensor, nn
from torch.nn import functional as F

from kshot.models import kernels
from kshot.models.hypercorrelation import Correlation
from kshot.models.kernels import matching


class CenterPivotConv4d(nn.Module):
    """A 4-D convolution whose kernel is 0 unless its query offset or its support offset is 0.

    That is the sum of a 2-D convolution over the query axes, at the support positions that the stride keeps,
    and a strided 2-D convolution over the support axes. The query stride is 1. The support stride is an
    argument of `forward`, because it depends on the image size and the weights do not.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.query_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
        self.support_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, volume: Tensor | Correlation, support_stride: tuple[int, int] = (1, 1)) -> Tensor:
        """Map (B, C, H, W, U, V) to (B, O, H, W, ceil(U / stride), ceil(V / stride))."""
        query, support = self.query_conv, self.support_conv
        if kernels.fuses_matching():
            assert query.bias is not None
            assert support.bias is not None
            bias = query.bias + support.bias
            return matching.center_pivot(volume, query.weight, support.weight, bias, support_stride)
        if isinstance(volume, Correlation):
            volume = volume.volume()
        kept = volume[..., :: support_stride[0], :: support_stride[1]]
        return _convolve_query_axes(kept, query) + _convolve_support_axes(volume, support, support_stride)


def _convolve_query_axes(volume: Tensor, conv: nn.Conv2d) -> Tensor:
    """Convolve a batch of B U V images of (H, W)."""
    b, _, _, _, u, v = volume.shape
    convolved: Tensor = conv(volume.permute(0, 4, 5, 1, 2, 3).flatten(0, 2))
    return convolved.reshape(b, u, v, *convolved.shape[1:]).permute(0, 3, 4, 5, 1, 2)


def _convolve_support_axes(volume: Tensor, conv: nn.Conv2d, stride: tuple[int, int]) -> Tensor:
    """Convolve a batch of B H W images of (U, V)."""
    b, _, h, w, _, _ = volume.shape
    images = volume.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    convolved = F.conv2d(images, conv.weight, conv.bias, stride, conv.padding)
    return convolved.reshape(b, h, w, *convolved.shape[1:]).permute(0, 3, 1, 2, 4, 5)
