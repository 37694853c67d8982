"""Features of single pixels for a classifier: colour, edges and texture around them, and deep features.

Colour, gradients and the eigenvalues of the Hessian at several scales are what ilastik (Berg et al. 2019) and
scikit-image's trainable segmentation use. They see lines and textures at the image's own detail, where the
deep features of `backbones` see objects and their parts.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.models.backbones import FeaturePyramid
from kshot.models.hypercorrelation import NORM_EPS

GRID = 256
"""Side of the square grid of filters, in positions."""

SIGMAS = (0.7, 1.5, 3.0, 6.0, 12.0)
"""Standard deviations of the Gaussians, in pixels of an image of twice the grid's side."""

NUM_FILTERS = 7 * len(SIGMAS)
"""Per scale: three colours, the gradient's length, two eigenvalues, and the local contrast."""

TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
"""Linear sRGB to XYZ, for the white point D65."""
WHITE = (0.95047, 1.0, 1.08883)


class PixelFeatures(NamedTuple):
    """Features of B images.

    filters: (B, NUM_FILTERS, GRID, GRID). deep: the last tap of each stride, (B, C, h, w), of norm 1.
    """

    filters: Tensor
    deep: tuple[Tensor, ...]


def pixel_features(images: Tensor, pyramid: FeaturePyramid) -> PixelFeatures:
    """Compute the features of images (B, 3, H, W) in [0, 1], with their pyramid."""
    taps = (stage[-1] for stage in pyramid.stages)
    return PixelFeatures(
        filters(images), tuple(tap / (tap.norm(dim=1, keepdim=True) + NORM_EPS) for tap in taps)
    )


def filters(images: Tensor) -> Tensor:
    """Filter images (B, 3, H, W) in [0, 1]: (B, NUM_FILTERS, GRID, GRID)."""
    resized = F.interpolate(
        images, (2 * GRID, 2 * GRID), mode="bilinear", align_corners=False, antialias=True
    )
    lab = to_lab(resized) / 50
    return torch.cat([_of_scale(lab, sigma) for sigma in SIGMAS], dim=1)


def to_lab(images: Tensor) -> Tensor:
    """Convert sRGB (B, 3, H, W) in [0, 1] to CIE L*a*b* (D65): L in [0, 100]."""
    linear = torch.where(images > 0.04045, ((images.clamp(min=0) + 0.055) / 1.055) ** 2.4, images / 12.92)
    xyz = torch.einsum("oc,bchw->bohw", images.new_tensor(TO_XYZ), linear)
    xyz = xyz / images.new_tensor(WHITE).view(3, 1, 1)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(
        dim=1
    )
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _of_scale(lab: Tensor, sigma: float) -> Tensor:
    """Filter at one scale; coarse ones on a smaller image, which changes little and is much faster."""
    step = 1 if sigma < 2 else 2 if sigma < 4 else 4
    image, sigma = F.avg_pool2d(lab, step), sigma / step
    smooth, light = blur(image, sigma), image[:, :1]
    mean = smooth[:, :1]
    right, left, down, up = (torch.roll(mean, *shift) for shift in ((-1, 3), (1, 3), (-1, 2), (1, 2)))
    across, along = (right - left) / 2, (down - up) / 2
    gradient = sigma * torch.hypot(across, along)
    xx, yy = right + left - 2 * mean, down + up - 2 * mean
    xy = (torch.roll(across, -1, 2) - torch.roll(across, 1, 2)) / 2
    middle, half = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
    eigenvalues = sigma**2 * torch.cat([middle + half, middle - half], dim=1)
    contrast = (blur(light**2, sigma) - mean**2).clamp(min=0).sqrt()
    found = torch.cat([smooth, gradient, eigenvalues, contrast], dim=1)
    if step == 1:
        return F.avg_pool2d(found, 2)
    return F.interpolate(found, (GRID, GRID), mode="bilinear", align_corners=False)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Convolve images (B, C, H, W) with a Gaussian, cut off at three standard deviations."""
    radius = round(3 * sigma)
    positions = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(positions**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel[..., None, :], groups=images.shape[1])
    return F.conv2d(rows, kernel[..., None], groups=images.shape[1])
