"""Step 2 of the network: the hypercorrelation, how alike every two positions of two images are.

Axis letters: B batch, L taps of a stage, C channels, U V support rows and columns, H W query's.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.network.backbones import FeaturePyramid

NORM_EPS = 1e-5
"""Added to every norm (Min et al. 2021), so that an all-zero feature correlates with nothing."""

MaskPosition = Literal["after", "before"]


class MaskedVolume(NamedTuple):
    """One stage's hypercorrelation in its two factors, for whoever can do better than to multiply them.

    correlation: (B, L, U, V, H, W) in [0, 1]. mask: (B, U, V) in [0, 1]; None if features were masked before.
    """

    correlation: Tensor
    mask: Tensor | None

    @property
    def shape(self) -> torch.Size:
        """Sizes of the volume's axes."""
        return self.correlation.shape

    def product(self) -> Tensor:
        """Multiply the mask onto the correlation: (B, L, U, V, H, W) in [0, 1]."""
        if self.mask is None:
            return self.correlation
        return self.correlation * self.mask[:, None, :, :, None, None].to(self.correlation.dtype)


def hypercorrelation(
    query: FeaturePyramid,
    support: FeaturePyramid,
    support_mask: Tensor,
    *,
    mask_position: MaskPosition = "after",
) -> list[MaskedVolume]:
    """Correlate every query position with every masked support position (paper, eqs. 1-3 and 10).

    support_mask: (B, 1, H, W) in [0, 1], hard or soft, of any size; it is resized to each stage.
    mask_position: "after" multiplies the mask onto the correlation. "before" multiplies it into the
    features before their norm, as printed in the paper and as HSNet trains: there a soft mask
    cancels out against the norm.

    Returns the stages' volumes, the deepest first.
    """
    volumes = []
    for query_taps, support_taps in zip(query.stages, support.stages, strict=True):
        mask = resize(support_mask, support_taps[0].shape[-2:])
        taps = []
        for query_BCHW, support_BCUV in zip(query_taps, support_taps, strict=True):
            if mask_position == "before":
                support_BCUV = support_BCUV * mask
            taps.append(correlation(query_BCHW, support_BCUV))
        after = mask[:, 0] if mask_position == "after" else None
        volumes.append(MaskedVolume(torch.stack(taps, dim=1), after))
    return volumes[::-1]


def correlation(query_BCHW: Tensor, support_BCUV: Tensor) -> Tensor:
    """Cosine similarity of all pairs of positions, negative ones cut to 0: (B, U, V, H, W)."""
    query_BCHW = query_BCHW / (query_BCHW.norm(dim=1, keepdim=True) + NORM_EPS)
    support_BCUV = support_BCUV / (support_BCUV.norm(dim=1, keepdim=True) + NORM_EPS)
    return torch.einsum("bcuv,bchw->buvhw", support_BCUV, query_BCHW).relu()


def resize(maps: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Resize (B, C, H, W) maps bilinearly, corners on corners, as all of this network does."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)
