"""Step 3d of the network, not in the paper: how alike the query is to the object, and how alike to the rest.

A hypercorrelation under the support mask says what is like the object, and nothing of what is not: cracks,
cells and textures differ from their surroundings by a little only. Two things say it: means of features, as
in PANet (Wang et al. 2019), and the most alike position, as in the prior mask of PFENet (Tian et al. 2020);
each of the object and of the rest.

Axis letters: B batch, K masks of one support, C channels, H W query rows and columns, U V support's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.models.backbones import STRIDES
from kshot.models.hypercorrelation import NORM_EPS, NormalizedFeatures, resize

SCALE = 10.0
"""Factor of all maps: differences of cosines of a few hundredths matter, and a network learns them slowly."""

NEAREST_FROM = 1
"""First of STRIDES at which the most alike position is looked for; at stride 8 it takes long."""

NUM_MAPS = 2 * len(STRIDES) + 2 * len(STRIDES[NEAREST_FROM:])


def support_prior(
    query: NormalizedFeatures, support: NormalizedFeatures, masks: Tensor, size: tuple[int, ...] | torch.Size
) -> Tensor:
    """Compare each query position with the support's object and rest, by the last tap of each stride.

    masks: (B, K, H, W) in [0, 1], hard or soft, of any size; they may have a gradient. Returns maps
    (B K, NUM_MAPS, h, w), resized to `size` = (h, w): for each stride from fine to coarse the likeness to the
    object and by how much it is above that to the rest, by means, then by most alike positions.
    """
    maps = []
    stages = zip(query.directions, support.directions, support.norms, strict=True)
    for place, (query_taps, support_taps, norms) in enumerate(stages):
        query_BHWC, support_BUVC = query_taps[-1], support_taps[-1]
        inside = F.interpolate(masks, support_BUVC.shape[1:3], mode="area").to(support_BUVC.dtype)
        weights = (inside, 1 - inside)
        features_BUVC = support_BUVC * norms[-1][..., None]
        kinds = [[mean_likeness(query_BHWC, features_BUVC, of_part) for of_part in weights]]
        if place >= NEAREST_FROM:
            cosines_BHWUV = torch.einsum("bhwc,buvc->bhwuv", query_BHWC, support_BUVC)
            kinds.append([nearest_likeness(cosines_BHWUV, of_part) for of_part in weights])
        for to_object, to_rest in kinds:
            maps += [to_object, to_object - to_rest]
    return SCALE * torch.stack([resize(one, size) for one in maps], dim=2).flatten(0, 1)


def mean_likeness(query: Tensor, features: Tensor, weights: Tensor) -> Tensor:
    """Give cosines of query directions and weighted means of features, (B, K, H, W) in [-1, 1].

    query: (B, H, W, C), of norm 1. features: (B, U, V, C). weights: (B, K, U, V); 0 everywhere gives 0.
    """
    sums_BKC = torch.einsum("bkuv,buvc->bkc", weights, features)
    means_BKC = sums_BKC / (sums_BKC.norm(dim=-1, keepdim=True) + NORM_EPS)
    return torch.einsum("bhwc,bkc->bkhw", query, means_BKC)


def nearest_likeness(cosines: Tensor, weights: Tensor) -> Tensor:
    """Give the likeness to the most alike support position, (B, K, H, W) in [0, 1].

    A cosine c counts as (1 + c) / 2, times the position's weight as a share of the largest one, so that an
    object smaller than a position counts in full. cosines: (B, H, W, U, V). weights: (B, K, U, V); 0
    everywhere gives 0.
    """
    likeness_BHWX = (1 + cosines.flatten(3)) / 2
    weights_BKX = weights.flatten(2)
    shares_BKX = weights_BKX / (weights_BKX.amax(dim=-1, keepdim=True) + NORM_EPS)
    nearest = [(likeness_BHWX * of_mask[:, None, None]).amax(dim=-1) for of_mask in shares_BKX.unbind(dim=1)]
    return torch.stack(nearest, dim=1)
