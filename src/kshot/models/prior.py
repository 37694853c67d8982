"""The support prior: similarity of the query to the support's object and to its background; not in the paper.

A hypercorrelation under the support mask shows what resembles the object, but not what resembles its
background, and cracks, cells and textures differ only a little from theirs. Two similarities show both:
cosines to masked average features, as in PANet (Wang et al. 2019), and the maximum over positions, as in the
prior mask of PFENet (Tian et al. 2020); each for the object and for the background.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.models.backbones import STRIDES
from kshot.models.hypercorrelation import NORM_EPS, NormalizedFeatures, resize

SCALE = 10.0
"""Factor of all maps: differences of a few hundredths matter, and a network learns them slowly."""

FIRST_MAX_STAGE = 1
"""Index in STRIDES of the first stage with a maximum over positions; at stride 8 it is slow."""

NUM_MAPS = 2 * len(STRIDES) + 2 * len(STRIDES[FIRST_MAX_STAGE:])


def support_prior(
    query: NormalizedFeatures, support: NormalizedFeatures, masks: Tensor, size: tuple[int, ...] | torch.Size
) -> Tensor:
    """Compare each query position with the support's object and background, in the last tap of each stride.

    masks: (B, K, H, W) in [0, 1], hard or soft, of any size; they may have a gradient. Returns maps
    (B K, NUM_MAPS, h, w), resized to `size` = (h, w): for each stride from fine to coarse the similarity to
    the object, and how far it exceeds that to the background, by averages and then by maxima.
    """
    maps = []
    stages = zip(query.unit, support.unit, support.norms, strict=True)
    for stage, (query_taps, support_taps, norms) in enumerate(stages):
        query_BHWC, support_BUVC = query_taps[-1], support_taps[-1]
        object_BKUV = F.interpolate(masks, support_BUVC.shape[1:3], mode="area").to(support_BUVC.dtype)
        parts = object_BKUV, 1 - object_BKUV
        features_BUVC = support_BUVC * norms[-1][..., None]
        similarities = [[mean_similarity(query_BHWC, features_BUVC, part) for part in parts]]
        if stage >= FIRST_MAX_STAGE:
            cosines_BHWUV = torch.einsum("bhwc,buvc->bhwuv", query_BHWC, support_BUVC)
            similarities.append([max_similarity(cosines_BHWUV, part) for part in parts])
        for to_object, to_background in similarities:
            maps += [to_object, to_object - to_background]
    return SCALE * torch.stack([resize(one, size) for one in maps], dim=2).flatten(0, 1)


def mean_similarity(query: Tensor, features: Tensor, weights: Tensor) -> Tensor:
    """Return the cosines of query features and weighted mean features, (B, K, H, W) in [-1, 1].

    query: (B, H, W, C) of norm 1. features: (B, U, V, C). weights: (B, K, U, V); all 0 gives 0.
    """
    sums_BKC = torch.einsum("bkuv,buvc->bkc", weights, features)
    means_BKC = sums_BKC / (sums_BKC.norm(dim=-1, keepdim=True) + NORM_EPS)
    return torch.einsum("bhwc,bkc->bkhw", query, means_BKC)


def max_similarity(cosines: Tensor, weights: Tensor) -> Tensor:
    """Return the similarity to the most similar support position, (B, K, H, W) in [0, 1].

    The similarity of a cosine c is (1 + c) / 2, times the position's weight divided by the largest weight, so
    that an object smaller than a position counts in full. cosines: (B, H, W, U, V). weights: (B, K, U, V);
    all 0 gives 0.
    """
    similarity_BHWX = (1 + cosines.flatten(3)) / 2
    weights_BKX = weights.flatten(2)
    relative_BKX = weights_BKX / (weights_BKX.amax(dim=-1, keepdim=True) + NORM_EPS)
    maxima = [(similarity_BHWX * one[:, None, None]).amax(dim=-1) for one in relative_BKX.unbind(dim=1)]
    return torch.stack(maxima, dim=1)
