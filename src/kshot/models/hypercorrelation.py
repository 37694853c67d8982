"""Step 2 of the network: the hypercorrelation, how alike every two positions of two images are.

Axis letters: B batch, K masks of one support, L taps of a stage, C channels, H W query rows and columns,
U V support's. The query's axes come first and channels last: a correlation is then one matrix product, and no
later step has to move data.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.errors import ModelError
from kshot.models.backbones import FeaturePyramid

NORM_EPS = 1e-5
"""Added to every norm (Min et al. 2021), so that an all-zero feature correlates with nothing."""

MaskPosition = Literal["after", "before"]


class NormalizedFeatures(NamedTuple):
    """An image's features, ready to be matched: computed once, used in every match.

    directions: for strides 8, 16, 32 the taps in the order of depth, each (B, H, W, C), of norm 1.
    norms: what they were divided by, each (B, H, W).
    """

    directions: tuple[tuple[Tensor, ...], ...]
    norms: tuple[tuple[Tensor, ...], ...]

    def pick(self, places: Tensor) -> "NormalizedFeatures":
        """Give the descriptors of some images of the batch, by their places (N,); one may come twice."""
        directions, norms = (
            tuple(tuple(tap[places] for tap in stage) for stage in one)
            for one in (self.directions, self.norms)
        )
        return NormalizedFeatures(directions, norms)

    def stages(self) -> tuple[tuple[Tensor, ...], ...]:
        """Give the features back that these are of, each (B, C, H, W), centred if they were."""
        return tuple(
            tuple((d * n[..., None]).permute(0, 3, 1, 2) for d, n in zip(*stage, strict=True))
            for stage in zip(self.directions, self.norms, strict=True)
        )


def normalize_features(pyramid: FeaturePyramid, means: Tensor | None = None) -> NormalizedFeatures:
    """Divide each feature of a pyramid by its norm.

    means: (C of all taps together,), or (B, C) if each image has its own, taken from the features first;
    None: features stay as they are (paper).
    """
    stages = pyramid.stages if means is None else _centred(pyramid.stages, means)
    norms = tuple(tuple(tap.norm(dim=1) + NORM_EPS for tap in taps) for taps in stages)
    directions = tuple(
        tuple(
            (tap / norm[:, None]).permute(0, 2, 3, 1).contiguous() for tap, norm in zip(*stage, strict=True)
        )
        for stage in zip(stages, norms, strict=True)
    )
    return NormalizedFeatures(directions, norms)


def tap_means(pyramid: FeaturePyramid) -> Tensor:
    """Average each channel over the pyramid's images and positions: (C of all taps together,)."""
    return torch.cat([tap.float().mean(dim=(0, 2, 3)) for taps in pyramid.stages for tap in taps])


def _centred(stages: tuple[tuple[Tensor, ...], ...], means: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    of_tap = iter(torch.split(means, [tap.shape[1] for taps in stages for tap in taps], dim=-1))
    return tuple(tuple(tap - next(of_tap)[..., None, None] for tap in taps) for taps in stages)


class Box(NamedTuple):
    """Support rows and columns, first and one past the last."""

    top: int
    bottom: int
    left: int
    right: int


class Correlation(NamedTuple):
    """One stage's hypercorrelation, in its factors: a network multiplies what it needs of them.

    query: L taps (B, H, W, C). support: L taps (B, U, V, C). weights: (B, K, L, U, V) in [0, 1], what the
    masks leave of each support position; L may be 1, for all taps. Directions have no gradient, weights may.
    """

    query: tuple[Tensor, ...]
    support: tuple[Tensor, ...]
    weights: Tensor

    @property
    def query_size(self) -> torch.Size:
        """Rows and columns of the query's maps: (H, W)."""
        return self.query[0].shape[1:3]

    @property
    def support_size(self) -> torch.Size:
        """Rows and columns of the support's maps: (U, V)."""
        return self.support[0].shape[1:3]

    def box(self, number: int) -> Box:
        """Find the smallest box around what the masks leave of support `number` of the batch.

        All of it if the masks learn: they do so at zero, too. One position if they leave nothing.
        """
        u, v = self.support_size
        if self.weights.requires_grad:
            return Box(0, u, 0, v)
        is_left_UV = (self.weights[number] > 0).flatten(0, 1).any(dim=0)
        rows, columns = (is_left_UV.any(dim=axis).nonzero()[:, 0].tolist() or [0] for axis in (1, 0))
        return Box(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)

    def volume(self) -> Tensor:
        """Multiply it out, negative cosines cut to 0: (B K, H, W, U, V, L) in [0, 1]."""
        cosines_BHWUVL = torch.stack(
            [
                torch.einsum("bhwc,buvc->bhwuv", query_BHWC, support_BUVC).relu()
                for query_BHWC, support_BUVC in zip(self.query, self.support, strict=True)
            ],
            dim=-1,
        )
        weights_BKUVL = self.weights.permute(0, 1, 3, 4, 2)
        return (cosines_BHWUVL[:, None] * weights_BKUVL[:, :, None, None]).flatten(0, 1)


def hypercorrelation(
    query: NormalizedFeatures,
    support: NormalizedFeatures,
    support_mask: Tensor,
    *,
    mask_position: MaskPosition = "after",
) -> list[Correlation]:
    """Correlate every query position with every masked support position (paper, eqs. 1-3 and 10).

    support_mask: (B, K, H, W) in [0, 1], hard or soft, of any size; it is resized to each stage. With K masks
    of each support the results count as a batch of B K, a support's masks next to one another.
    mask_position: "after" multiplies the mask onto the correlation. "before" multiplies it into the
    features before their norm, as printed in the paper and as HSNet trains: there a soft mask
    cancels out against the norm.

    Returns the stages' correlations, the deepest first.
    Raises ModelError for features with a gradient: matching would not give them theirs.
    """
    if any(tap.requires_grad for one in (query, support) for taps in one.directions for tap in taps):
        raise ModelError(
            "The features have a gradient, but matching learns from frozen backbones only. "
            "Freeze the backbone, or compute the features under torch.no_grad()."
        )
    correlations = []
    stages = zip(query.directions, support.directions, support.norms, strict=True)
    for query_taps, support_taps, support_norms in stages:
        weights_BKLUV = resize(support_mask, support_taps[0].shape[1:3])[:, :, None]
        if mask_position == "before":
            # What multiplying a feature before its norm leaves of the divided one.
            norms_BLUV = torch.stack(support_norms, dim=1)[:, None]
            masked = weights_BKLUV * (norms_BLUV - NORM_EPS) + NORM_EPS
            weights_BKLUV = weights_BKLUV * norms_BLUV / masked
        correlations.append(Correlation(query_taps, support_taps, weights_BKLUV))
    return correlations[::-1]


def resize(maps: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Resize (B, C, H, W) maps bilinearly, corners on corners, as all of this network does."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)
