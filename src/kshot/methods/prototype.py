"""Prototypes: masked average pooling and cosine similarity; needs no training.

Wang et al. 2019, PANet: a class is the mean of its features, the background is another class, and a pixel
belongs to the most similar prototype. Deviations: the similarities at two depths are averaged, where PANet
has one; the two were chosen on VOC's training images, not on a test. Each negative, an image without the
object, is one more prototype of the background: docs/mistakes.md.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods.base import Method, register_method
from kshot.methods.voting import foreground
from kshot.models.backbones import Backbone, FeaturePyramid
from kshot.models.hypercorrelation import NORM_EPS, resize
from kshot.types import Prediction, Segmentation, Support

COSINE_SCALE = 20.0
"""Factor between cosine similarities and logits (PANet, section 3.3)."""

STAGES = (1, 2)
"""Stages whose last taps are compared: strides 16 and 32."""


@register_method("prototype")
class Prototype(Method):
    """Compare each query position with the mean foreground and the mean background of the supports."""

    needs_training = False
    supports_negatives = True

    cls_backbone: Backbone

    def features(self, images: Tensor) -> FeaturePyramid:
        """Extract features of images (B, 3, H, W) in [0, 1]."""
        features: FeaturePyramid = self.cls_backbone(images)
        return features

    def match(
        self, query: FeaturePyramid, support: Support, episode_class: Tensor | None = None
    ) -> Prediction:
        """Compare a query with one shot: logits at stride 16."""
        return Prediction(final=self.logits(query, [support]))

    def logits(
        self, query: FeaturePyramid, supports: Sequence[Support], negatives: Sequence[Support] = ()
    ) -> Tensor:
        """Compare a query with K shots: logits (B, 2, h, w) at stride 16, background first.

        negatives: images without the object, whose masks are empty.
        """
        shots = [self.prototypes(support) for support in supports]
        classes = [torch.stack(of_stage).mean(dim=0) for of_stage in zip(*shots, strict=True)]
        if not negatives:
            return self.compare(query, classes)
        backgrounds = [[of_stage[:, :1] for of_stage in self.prototypes(one)] for one in negatives]
        stages = zip(classes, *backgrounds, strict=True)
        logits = self.compare(query, [torch.cat(of_stage, dim=1) for of_stage in stages])
        background = torch.cat([logits[:, :1], logits[:, 2:]], dim=1).amax(dim=1, keepdim=True)
        return torch.cat([background, logits[:, 1:2]], dim=1)

    def prototypes(self, support: Support) -> list[Tensor]:
        """Return the mean features of a support's background and object: (B, 2, C) for each of STAGES."""
        return [prototypes(support.features.stages[stage][-1], support.mask) for stage in STAGES]

    def compare(self, query: FeaturePyramid, classes: Sequence[Tensor]) -> Tensor:
        """Compare a query with prototypes (B, P, C) for each of STAGES: logits (B, P, h, w)."""
        return compare_taps([query.stages[stage][-1] for stage in STAGES], classes)

    def match_all(self, queries: FeaturePyramid, num_queries: int, support: Support) -> Tensor:
        """Compare B queries with the mean prototypes of K supports: logits (B, 2, h, w)."""
        return self.compare(queries, [shots.mean(dim=0, keepdim=True) for shots in self.prototypes(support)])

    def segment(
        self,
        query: FeaturePyramid,
        supports: Sequence[Support],
        size: tuple[int, int],
        negatives: Sequence[Support] = (),
    ) -> Segmentation:
        """Segment a query with the mean prototypes of K shots at `size` = (height, width); see `logits`."""
        probability = foreground(resize(self.logits(query, supports, negatives), size))[:, 0]
        return Segmentation(mask=probability > self.threshold, probability=probability)

    def pyramid(self, features: FeaturePyramid) -> FeaturePyramid:
        """Return the features, which are a pyramid."""
        return features


def compare_taps(taps: Sequence[Tensor], classes: Sequence[Tensor]) -> Tensor:
    """Compare taps (B, C, h, w) with prototypes (B, P, C), one for each tap: logits (B, P, h, w).

    The size is the first tap's.
    """
    similarities = []
    for tap, classes_BPC in zip(taps, classes, strict=True):
        cosine = F.cosine_similarity(tap[:, None], classes_BPC[..., None, None], dim=2)
        similarities.append(resize(cosine, taps[0].shape[-2:]))
    return COSINE_SCALE * torch.stack(similarities).mean(dim=0)


def prototypes(features: Tensor, mask: Tensor) -> Tensor:
    """Return the means of features (B, C, h, w) over background and object: (B, 2, C).

    mask: (B, 1, H, W) in [0, 1]; resized by area, so that not even a single pixel of it is lost.
    """
    weight = F.interpolate(mask, features.shape[-2:], mode="area")
    weights = torch.cat([1 - weight, weight], dim=1)
    total = torch.einsum("bkhw,bchw->bkc", weights, features)
    return total / (weights.sum(dim=(-2, -1)).unsqueeze(-1) + NORM_EPS)
