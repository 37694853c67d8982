"""Correlation of a query with the support object at each depth (Karimi & Poullis 2024, Fig. 2c)."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kshot.errors import DataError
from kshot.models.backbones import STRIDES
from kshot.models.hypercorrelation import Correlation, NormalizedFeatures, resize


class DepthMap(NamedTuple):
    """Correlation of each pixel (H, W) of a query with the support object at one depth."""

    depth: str
    values: NDArray[np.float32]


def correlation_maps(
    query: NormalizedFeatures, support: NormalizedFeatures, support_mask: Tensor
) -> list[Tensor]:
    """Return each query position's mean correlation with the support object: per tap (B, h, w) in [0, 1].

    Correlations are cosine similarities; negative ones are set to 0. support_mask: (B, 1, H, W) in [0, 1];
    each support position is weighted by the share of its cell that the mask covers. Taps run from shallow to
    deep. Raises DataError for an empty mask.
    """
    if not support_mask.flatten(1).any(dim=1).all():
        raise DataError("A support mask is empty at this size. Mark the object, or raise the image size.")
    maps: list[Tensor] = []
    for query_taps, support_taps in zip(query.unit, support.unit, strict=True):
        share_BUV = F.interpolate(support_mask, support_taps[0].shape[1:3], mode="area")[:, 0]
        share_BUV = share_BUV / share_BUV.sum(dim=(-2, -1), keepdim=True)
        weights = torch.ones_like(share_BUV)[:, None, None]
        volume_BLHWUV = Correlation(query_taps, support_taps, weights).volume()
        maps += torch.einsum("blhwuv,buv->lbhw", volume_BLHWUV, share_BUV).unbind()
    return maps


def depth_maps(
    query: NormalizedFeatures,
    support: NormalizedFeatures,
    support_mask: Tensor,
    size: tuple[int, int],
    *,
    taps_per_stage: int = 1,
) -> list[DepthMap]:
    """Return one query's correlation maps of the last taps of each stage, resized to `size` (height, width).

    Taps are named by their number k, as in `discriminability_figure`. taps_per_stage: at most this many of
    each stage.
    """
    maps = enumerate(correlation_maps(query, support, support_mask), 1)
    chosen = []
    for stride, taps in zip(STRIDES, query.unit, strict=True):
        for k, values in [next(maps) for _ in taps][-taps_per_stage:]:
            full = resize(values[:1, None], size)[0, 0].cpu().numpy()
            chosen.append(DepthMap(f"Tap\u00a0{k}, stride\u00a0{stride}", full))
    return chosen
