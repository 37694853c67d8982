"""Step 3d of the network, not in the papers it follows: how alike the query is to the support's prototypes.

A hypercorrelation under the support mask says what is like the object, and nothing of what is not: cracks,
cells and textures differ from their surroundings by a little only. The mean of the object's features and that
of the rest, as in PANet (Wang et al. 2019), say both.

Axis letters: B batch, K masks of one support, C channels, H W query rows and columns, U V support's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.network.hypercorrelation import NORM_EPS, Descriptors, resize

MAPS_OF_STAGE = 2
"""Similarity to the object, and to the rest."""


def prototype_similarity(
    query: Descriptors, support: Descriptors, masks: Tensor, size: tuple[int, ...] | torch.Size
) -> Tensor:
    """Compare each query position with the object's prototype and the rest's, by the last tap of each stride.

    masks: (B, K, H, W) in [0, 1], hard or soft, of any size; they may have a gradient. Returns cosines
    (B K, 2 S, h, w) in [-1, 1] for S strides from fine to coarse, resized to `size` = (h, w); 0 where a mask
    leaves nothing to average.
    """
    maps = []
    stages = zip(query.directions, support.directions, support.norms, strict=True)
    for query_taps, support_taps, norms in stages:
        features_BUVC = support_taps[-1] * norms[-1][..., None]
        inside = F.interpolate(masks, features_BUVC.shape[1:3], mode="area")
        for weights_BKUV in (inside, 1 - inside):
            sums = torch.einsum("bkuv,buvc->bkc", weights_BKUV.to(features_BUVC.dtype), features_BUVC)
            prototypes_BKC = sums / (sums.norm(dim=-1, keepdim=True) + NORM_EPS)
            cosines = torch.einsum("bhwc,bkc->bkhw", query_taps[-1], prototypes_BKC)
            maps.append(resize(cosines, size))
    return torch.stack(maps, dim=2).flatten(0, 1)
