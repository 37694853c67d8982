"""Hypercorrelation: similarity of every query position to every masked support position (eqs. 1-3, 10)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.errors import ModelError
from kshot.models.backbones import FeaturePyramid
from kshot.models.choices import MaskPosition

NORM_EPS = 1e-5
"""Added to every norm (Min et al. 2021), so that an all-zero feature correlates with nothing."""


class NormalizedFeatures(NamedTuple):
    """The L2-normalized features of images, computed once and used in every correlation.

    unit: for strides 8, 16, 32 the taps from shallow to deep, each (B, H, W, C) of norm 1.
    norms: the norms that the features were divided by, each (B, H, W).
    """

    unit: tuple[tuple[Tensor, ...], ...]
    norms: tuple[tuple[Tensor, ...], ...]

    def stages(self) -> tuple[tuple[Tensor, ...], ...]:
        """Return the features before normalization, each (B, C, H, W); centered features stay centered."""
        return tuple(
            tuple((unit * norm[..., None]).permute(0, 3, 1, 2) for unit, norm in zip(*stage, strict=True))
            for stage in zip(self.unit, self.norms, strict=True)
        )


def normalize_features(pyramid: FeaturePyramid, means: Tensor | None = None) -> NormalizedFeatures:
    """Divide each feature of a pyramid by its L2 norm.

    means: channel means to subtract first, (C of all taps together,) or (B, C) if each image has its own.
    None subtracts nothing (paper).
    """
    stages = pyramid.stages if means is None else _center(pyramid.stages, means)
    norms = tuple(tuple(tap.norm(dim=1) + NORM_EPS for tap in taps) for taps in stages)
    unit = tuple(
        tuple(
            (tap / norm[:, None]).permute(0, 2, 3, 1).contiguous() for tap, norm in zip(*stage, strict=True)
        )
        for stage in zip(stages, norms, strict=True)
    )
    return NormalizedFeatures(unit, norms)


def tap_means(pyramid: FeaturePyramid) -> Tensor:
    """Return each channel's mean over the pyramid's images and positions: (C of all taps together,)."""
    return torch.cat([tap.float().mean(dim=(0, 2, 3)) for taps in pyramid.stages for tap in taps])


def _center(stages: tuple[tuple[Tensor, ...], ...], means: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    mean_of_tap = iter(torch.split(means, [tap.shape[1] for taps in stages for tap in taps], dim=-1))
    return tuple(tuple(tap - next(mean_of_tap)[..., None, None] for tap in taps) for taps in stages)


class Correlation(NamedTuple):
    """One stage's hypercorrelation, not yet computed: `volume` computes it, kernels only parts of it.

    query: L taps (B, H, W, C). support: L taps (B, U, V, C). masks: (B, K, L, U, V) in [0, 1]; L may be 1,
    one mask for all taps. Only the masks may have a gradient.
    """

    query: tuple[Tensor, ...]
    support: tuple[Tensor, ...]
    masks: Tensor

    @property
    def query_size(self) -> torch.Size:
        """The query's rows and columns, (H, W)."""
        return self.query[0].shape[1:3]

    @property
    def support_size(self) -> torch.Size:
        """The support's rows and columns, (U, V)."""
        return self.support[0].shape[1:3]

    def volume(self) -> Tensor:
        """Return ReLU(cosine similarity) x mask (eq. 3): (B K, L, H, W, U, V) in [0, 1]."""
        cosines_BLHWUV = torch.stack(
            [
                torch.einsum("bhwc,buvc->bhwuv", query_BHWC, support_BUVC).relu()
                for query_BHWC, support_BUVC in zip(self.query, self.support, strict=True)
            ],
            dim=1,
        )
        return (cosines_BLHWUV[:, None] * self.masks[:, :, :, None, None]).flatten(0, 1)


def correlate(
    query: NormalizedFeatures,
    support: NormalizedFeatures,
    support_mask: Tensor,
    *,
    mask_position: MaskPosition = "after",
) -> list[Correlation]:
    """Correlate every query position with every masked support position (eqs. 1-3).

    With the query as its own support that is eq. 10.

    support_mask: (B, K, H, W) in [0, 1], hard or soft, of any size; it is resized to each stage. The results
    count as a batch of B K, the masks of one support next to one another.
    mask_position: "after" multiplies the mask onto the correlation. "before" multiplies it into the support's
    features before their norm, as the paper prints it and HSNet trains; the norm then cancels a soft mask.

    Returns the correlations of the stages, the deepest first.
    Raises ModelError if features have a gradient: matching would not propagate it.
    """
    if any(tap.requires_grad for one in (query, support) for taps in one.unit for tap in taps):
        raise ModelError(
            "The features have a gradient, but matching learns from frozen backbones only. "
            "Freeze the backbone, or compute the features under torch.no_grad()."
        )
    correlations = []
    for query_taps, support_taps, norms in zip(query.unit, support.unit, support.norms, strict=True):
        masks_BKLUV = resize(support_mask, support_taps[0].shape[1:3])[:, :, None]
        if mask_position == "before":
            masks_BKLUV = _mask_before_norm(masks_BKLUV, norms)
        correlations.append(Correlation(query_taps, support_taps, masks_BKLUV))
    return correlations[::-1]


def _mask_before_norm(masks_BKLUV: Tensor, support_norms: tuple[Tensor, ...]) -> Tensor:
    """Return the factor of the cosine that equals a mask on the features: m |f| / |m f|."""
    norms_BKLUV = torch.stack(support_norms, dim=1)[:, None]
    masked_norms = masks_BKLUV * (norms_BKLUV - NORM_EPS) + NORM_EPS
    return masks_BKLUV * norms_BKLUV / masked_norms


def resize(maps: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """Resize maps (B, C, H, W) bilinearly with aligned corners, as the whole network does."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)
