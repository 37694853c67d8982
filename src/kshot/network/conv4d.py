"""Step 3a of the network: the centre-pivot 4-D convolution (Min et al. 2021, section 4.2).

Axis letters: B batch, C channels, H W query rows and columns, U V support's.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class CenterPivotConv4d(nn.Module):
    """A 4-D convolution whose kernel lives only where one of its two halves is at its centre.

    It is the sum of a 2-D convolution over the query axes, at the support positions that survive the
    stride, and a 2-D convolution over the support axes. Query strides are 1. The support stride is
    an argument of the call, because it depends on the size of the images and the weights don't.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.query_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
        self.support_conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)

    def forward(self, volume_BCHWUV: Tensor, support_stride: tuple[int, int] = (1, 1)) -> Tensor:
        """Map (B, C, H, W, U, V) to (B, C', H, W, ceil(U / stride), ceil(V / stride))."""
        over_query = self._convolve_query(volume_BCHWUV, support_stride)
        over_support = self._convolve_support(volume_BCHWUV, support_stride)
        return over_query + over_support

    def _convolve_query(self, volume_BCHWUV: Tensor, stride: tuple[int, int]) -> Tensor:
        pruned = volume_BCHWUV[..., :: stride[0], :: stride[1]]
        b, c, h, w, u, v = pruned.shape
        images = pruned.permute(0, 4, 5, 1, 2, 3).reshape(b * u * v, c, h, w)
        convolved: Tensor = self.query_conv(images)
        return convolved.view(b, u, v, -1, h, w).permute(0, 3, 4, 5, 1, 2)

    def _convolve_support(self, volume_BCHWUV: Tensor, stride: tuple[int, int]) -> Tensor:
        b, c, h, w, u, v = volume_BCHWUV.shape
        images = volume_BCHWUV.permute(0, 2, 3, 1, 4, 5).reshape(b * h * w, c, u, v)
        conv = self.support_conv
        convolved = F.conv2d(images, conv.weight, conv.bias, stride, conv.padding)
        return convolved.view(b, h, w, -1, *convolved.shape[-2:]).permute(0, 3, 1, 2, 4, 5)
