"""Two-pass matching that adapts to its support set; the method of the default model. Not in the paper.

The logits of three are added: the matching network, prototypes at twice its resolution, and a pixel
classifier that is fitted to the support set. The network knows objects, the classifier colours and textures.
How much each counts depends on two measurements:

- doubt: how badly the network finds the object again in a mirrored and smaller view of its own support image;
- strangeness: how unlike the support images the query's colours and textures are.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from kshot.methods.base import Method, register_method
from kshot.methods.config import ModelConfig
from kshot.methods.hsnet import BackboneFeatures
from kshot.methods.pixel_classifier import PixelClassifier
from kshot.methods.prototype import COSINE_SCALE, prototypes
from kshot.methods.two_pass import TwoPass
from kshot.methods.voting import segment_by_vote
from kshot.models.backbones import Backbone, FeaturePyramid
from kshot.models.hypercorrelation import resize
from kshot.models.pixel_features import GRID, PixelFeatures, pixel_features
from kshot.types import Prediction, Segmentation, Support

CERTAIN, DOUBTFUL = 0.7, 0.4
"""IoU of the network on a support's view at which there is no doubt about it, and at which there is most."""

REPLACED = 0.7
"""Share of the prototypes' logits that a trusted classifier replaces where doubt is greatest."""

CLASSIFIER_WEIGHT = 2.0

FAMILIAR = 1000.0
"""Strangeness at which the classifier counts half; that of another image of one series is 300 to 900."""

VIEW_SIZE = 0.8
"""Side of a support's view, relative to the image; mirrored pixels fill the rest."""

LEAST = 1e-3
"""Lower bound of a probability before its logit."""


class AdaptiveFeatures(NamedTuple):
    """Features of images: for matching, for prototypes and classifier, and of a support's view."""

    matching: BackboneFeatures
    pixels: PixelFeatures
    view: BackboneFeatures | None = None


class Adaptation(NamedTuple):
    """What is learned from a support set. doubt: 0 to 1. classifier: None if it has no background."""

    classifier: PixelClassifier | None
    prototypes: tuple[Tensor, ...]
    doubt: float


@register_method("adaptive")
class Adaptive(Method):
    """Two-pass matching, prototypes and a pixel classifier together.

    Images come at twice the matching network's size, so that the classifier sees their detail.
    network: the matching network.
    """

    is_transductive = True
    supports_negatives = True
    adapts = True
    matching_modules = tuple(f"network.{name}" for name in TwoPass.matching_modules)

    @classmethod
    def from_config(cls, config: ModelConfig, cls_backbone: Callable[[], Backbone]) -> Self:
        """Build the method that a config describes; its settings are the network's."""
        return cls(TwoPass.from_config(config, cls_backbone))

    def __init__(self, network: TwoPass) -> None:
        super().__init__(threshold=network.threshold)
        self.network = network

    @property
    def backbones(self) -> tuple[Backbone, Backbone]:
        """B_cls and B_sem."""
        return self.network.cls_backbone, self.network.sem_backbone

    def features(self, images: Tensor) -> AdaptiveFeatures:
        """Extract features of images (B, 3, H, W) in [0, 1]."""
        return AdaptiveFeatures(self.network.features(halve(images)), self._pixels(images))

    def support_features(self, images: Tensor) -> AdaptiveFeatures:
        """Extract features of support images (B, 3, H, W) in [0, 1], and those of their views."""
        small = halve(images)
        view = self.network.features(make_view(small))
        return AdaptiveFeatures(self.network.support_features(small), self._pixels(images), view)

    def adapt(self, supports: Sequence[Support], negatives: Sequence[Support] = ()) -> Adaptation:
        """Learn from a support set: about a second for each image. negatives: images without the object."""
        pixels = [one.features.pixels for one in (*supports, *negatives)]
        masks = [one.mask for one in (*supports, *negatives)]
        taps = zip(*(one.features.pixels.deep for one in supports), strict=True)
        means = tuple(
            torch.stack([prototypes(tap, one.mask) for tap, one in zip(of_tap, supports, strict=True)]).mean(
                0
            )
            for of_tap in list(taps)[1:]
        )
        known = [is_known(mask, self.compare(own, means)) for own, mask in zip(pixels, masks, strict=True)]
        return Adaptation(PixelClassifier.fit(pixels, masks, known), means, self._doubt(supports, known))

    def match_each(
        self, query: AdaptiveFeatures, supports: Sequence[Support], episode_class: Tensor | None = None
    ) -> list[Prediction]:
        """Segment a query with each of K supports by the matching network alone."""
        return self.network.match_each(query.matching, [_matching(one) for one in supports], episode_class)

    def segment(
        self,
        query: AdaptiveFeatures,
        supports: Sequence[Support],
        size: tuple[int, int],
        negatives: Sequence[Support] = (),
        adapted: Adaptation | None = None,
    ) -> Segmentation:
        """Segment a query at `size` = (height, width). adapted: what `adapt` returned; None: adapt now."""
        if adapted is None:
            adapted = self.adapt(supports, negatives)
        found = segment_by_vote(self.match_each(query, supports), size, self.threshold)
        logits = (1 - adapted.doubt) * logit(found.probability)
        logits = logits + resize(self.compare(query.pixels, adapted.prototypes), size)[:, 0]
        if adapted.classifier is not None:
            strangeness = adapted.classifier.strangeness(query.pixels).view(-1, 1, 1)
            trust = 1 / (1 + (strangeness / FAMILIAR) ** 2)
            classified = resize(adapted.classifier.logits(query.pixels), size)[:, 0]
            logits = logits * (1 - REPLACED * adapted.doubt * trust) + CLASSIFIER_WEIGHT * trust * classified
        probability = logits.sigmoid()
        return found._replace(mask=probability > self.threshold, probability=probability)

    def compare(self, query: PixelFeatures, classes: Sequence[Tensor]) -> Tensor:
        """Compare a query with means (1, 2, C) of background and object at strides 16 and 32, as logits.

        Returns (B, 1, h, w): how much more a position resembles the object.
        """
        size = query.deep[-len(classes)].shape[-2:]
        found = []
        for tap, of_tap in zip(query.deep[-len(classes) :], classes, strict=True):
            cosines = F.cosine_similarity(tap[:, None], of_tap[..., None, None], dim=2)
            found.append(resize(cosines[:, 1:] - cosines[:, :1], size))
        return COSINE_SCALE * torch.stack(found).mean(dim=0)

    def pyramid(self, features: AdaptiveFeatures) -> FeaturePyramid:
        """Return the features of B_cls."""
        return self.network.pyramid(features.matching)

    def without_class(self, query: AdaptiveFeatures, episode_class: Tensor) -> AdaptiveFeatures:
        """Return a query's features as if H_cls had not learned a base class (B,); -1 keeps all."""
        return query._replace(matching=self.network.without_class(query.matching, episode_class))

    def _pixels(self, images: Tensor) -> PixelFeatures:
        return pixel_features(images, self.network.cls_backbone(images))

    def _doubt(self, supports: Sequence[Support], known: Sequence[Tensor]) -> float:
        """Segment each support's view by itself: 0 if the network finds the object again, 1 if it fails."""
        overlaps = []
        for one, believed in zip(supports, known, strict=False):  # those of negatives follow
            mask = make_view(one.mask)[:, 0] > 0.5
            counts = make_view(F.interpolate(believed.float(), one.mask.shape[-2:]))[:, 0] > 0.5
            predictions = self.network.match_each(one.features.view, [_matching(one)])
            found = segment_by_vote(predictions, (mask.shape[1], mask.shape[2]), self.threshold).mask
            overlaps.append((found & mask & counts).sum() / ((found | mask) & counts).sum().clamp(min=1))
        mean = float(torch.stack(overlaps).mean())
        return min(max((CERTAIN - mean) / (CERTAIN - DOUBTFUL), 0.0), 1.0)


def _matching(support: Support) -> Support:
    """Return a support with the matching network's features alone."""
    return support._replace(features=support.features.matching)


def is_known(mask: Tensor, similarity: Tensor) -> Tensor:
    """Return where a mask (1, 1, H, W) is to be believed: (1, 1, GRID, GRID) bool.

    People label a few of many objects. Far from all that is labelled, what looks like the object is therefore
    not taken as background. Far is outside the box of all that is labelled, with half its size added on each
    side. similarity: (1, 1, h, w), positive where a position resembles the object.
    """
    labelled = F.adaptive_max_pool2d(mask, GRID)[0, 0] > 0
    near = torch.zeros_like(labelled)
    if labelled.any():
        rows, columns = (labelled.any(dim=dim).nonzero()[[0, -1], 0] for dim in (1, 0))
        (top, bottom), (left, right) = (_widen(*ends.tolist()) for ends in (rows, columns))
        near[top:bottom, left:right] = True
    return (near | (resize(similarity, (GRID, GRID))[0, 0] <= 0) | labelled)[None, None]


def _widen(first: int, last: int) -> tuple[int, int]:
    """Return start and end of a range with half its length added on each side, within the grid."""
    margin = (last + 1 - first) // 2
    return max(first - margin, 0), min(last + 1 + margin, GRID)


def halve(images: Tensor) -> Tensor:
    """Resize images (B, 3, S, S) for matching: 32 n + 1 pixels a side, about half of S."""
    side = 32 * max(round((images.shape[-1] - 1) / 64), 1) + 1
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)


def make_view(images: Tensor) -> Tensor:
    """Mirror images or masks (B, C, S, S) and make them smaller, with mirrored pixels around."""
    side = images.shape[-1]
    inner = round(VIEW_SIZE * side)
    before = (side - inner) // 2
    small = F.interpolate(images, (inner, inner), mode="bilinear", align_corners=False, antialias=True)
    margins = (before, side - inner - before)
    return F.pad(small.flip(-1), margins * 2, mode="reflect")


def logit(probability: Tensor) -> Tensor:
    """Return the log-odds of probabilities, those of 0 and 1 as of LEAST and 1 - LEAST."""
    return probability.clamp(LEAST, 1 - LEAST).logit()
