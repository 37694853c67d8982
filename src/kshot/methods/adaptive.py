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
from kshot.methods.prototype import STAGES, compare_taps, prototypes
from kshot.methods.two_pass import TwoPass
from kshot.methods.voting import segment_by_vote
from kshot.models.backbones import Backbone, FeaturePyramid
from kshot.models.hypercorrelation import resize
from kshot.models.pixel_features import GRID, PixelFeatures, pixel_features
from kshot.types import Prediction, Segmentation, Support

CERTAIN, DOUBTFUL = 0.55, 0.4
"""IoU of the network on a support's view at which there is no doubt about it, and at which there is most."""

UNHEARD = 0.5
"""Share of the network's logits that does not count where doubt is greatest."""

REPLACED = 0.7
"""Share of all other logits that a trusted classifier replaces where doubt is greatest."""

CLASSIFIER_WEIGHT = 2.0

FAMILIAR = 400.0
"""Strangeness at which the classifier counts half; most other images of a series are below it."""

PEAK = 0.99
"""Quantile of an image's similarity to the object that says whether the object is there."""

ABSENT = 0.33
"""Peak of a query, relative to those of the support images, below which nothing is found."""

MOST_DOUBT = 0.2
"""Doubt up to which that holds: colours and textures have no clear peak."""

REFINE_RADIUS, REFINE_EPS = 10, 4e-3
"""Window, in positions of the grid, and smoothness of the filter that moves borders to the image's edges."""

VIEW_SIZE = 0.8
"""Side of a support's view, relative to the image; mirrored pixels fill the rest."""

LEAST = 1e-3
"""Lower bound of a probability before its logit."""


class AdaptiveFeatures(NamedTuple):
    """Features of images: for matching, and for prototypes and classifier.

    images: (B, 3, h, w) as the matching network sees them, for views.
    """

    matching: BackboneFeatures
    pixels: PixelFeatures
    images: Tensor


class Adaptation(NamedTuple):
    """What is learned from a support set.

    classifier: None if all of it is one class. doubt: 0 to 1. peak: of the support images' similarity.
    """

    classifier: PixelClassifier | None
    prototypes: tuple[Tensor, ...]
    doubt: float
    peak: float


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
        small = halve(images)
        return AdaptiveFeatures(self.network.features(small), self._pixels(images), small)

    def support_features(self, images: Tensor) -> AdaptiveFeatures:
        """Extract features of support images (B, 3, H, W) in [0, 1]; no base map."""
        small = halve(images)
        return AdaptiveFeatures(self.network.support_features(small), self._pixels(images), small)

    def adapt(self, supports: Sequence[Support], negatives: Sequence[Support] = ()) -> Adaptation:
        """Learn from a support set: about a second for each image. negatives: images without the object."""
        pixels = [one.features.pixels for one in (*supports, *negatives)]
        masks = [one.mask for one in (*supports, *negatives)]
        means = tuple(_mean_prototypes(supports, stage) for stage in STAGES)
        similar = [self.compare(own, means) for own in pixels]
        known = [is_known(mask, own) for mask, own in zip(masks, similar, strict=True)]
        return Adaptation(
            PixelClassifier.fit(pixels, masks, known),
            means,
            self._doubt(supports, known),
            float(torch.cat([peak(one) for one in similar[: len(supports)]]).mean()),
        )

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
        similarity = self.compare(query.pixels, adapted.prototypes)
        logits = (1 - UNHEARD * adapted.doubt) * logit(found.probability)
        logits = logits + resize(similarity, size)[:, 0]
        logits = refine(logits, query.pixels)
        if adapted.classifier is not None:
            strangeness = adapted.classifier.strangeness(query.pixels).view(-1, 1, 1)
            trust = 1 / (1 + (strangeness / FAMILIAR) ** 2)
            classified = resize(adapted.classifier.logits(query.pixels), size)[:, 0]
            logits = logits * (1 - REPLACED * adapted.doubt * trust) + CLASSIFIER_WEIGHT * trust * classified
        probability = logits.sigmoid()
        if adapted.doubt <= MOST_DOUBT:
            is_there = peak(similarity) >= ABSENT * adapted.peak
            probability = torch.where(is_there.view(-1, 1, 1), probability, probability * self.threshold)
        return found._replace(mask=probability > self.threshold, probability=probability)

    def compare(self, query: PixelFeatures, classes: Sequence[Tensor]) -> Tensor:
        """Compare a query with means (1, 2, C) of background and object for each of STAGES, as logits.

        Returns (B, 1, h, w): how much more a position resembles the object.
        """
        background, foreground = compare_taps([query.deep[stage] for stage in STAGES], classes).chunk(
            2, dim=1
        )
        return foreground - background

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
            view = self.network.features(make_view(one.features.images))
            predictions = self.network.match_each(view, [_matching(one)])
            found = segment_by_vote(predictions, (mask.shape[1], mask.shape[2]), self.threshold).mask
            overlaps.append((found & mask & counts).sum() / ((found | mask) & counts).sum().clamp(min=1))
        mean = float(torch.stack(overlaps).mean())
        return min(max((CERTAIN - mean) / (CERTAIN - DOUBTFUL), 0.0), 1.0)


def _mean_prototypes(supports: Sequence[Support], stage: int) -> Tensor:
    """Return the mean features of background and object in one stage's tap: (1, 2, C)."""
    shots = [prototypes(one.features.pixels.deep[stage], one.mask) for one in supports]
    return torch.stack(shots).mean(dim=0)


def _matching(support: Support) -> Support:
    """Return a support with the matching network's features alone."""
    return support._replace(features=support.features.matching)


def is_known(mask: Tensor, similarity: Tensor) -> Tensor:
    """Return where a mask (1, 1, H, W) is to be believed: (1, 1, GRID, GRID) bool.

    People label a few of many objects. What looks like the object, or is beside that, but is neither labelled
    nor near a label, is therefore not taken as background. Near is within a quarter of the side of a square
    of the labelled area. similarity: (1, 1, h, w), positive where a position resembles the object.
    """
    labelled = F.adaptive_max_pool2d(mask, GRID)
    radius = max(round(float(labelled.sum().sqrt()) / 4), 1)
    near, similar = (
        F.max_pool2d(one, 2 * radius + 1, 1, radius) > 0
        for one in (labelled, (resize(similarity, (GRID, GRID)) > 0).float())
    )
    return near | ~similar


def peak(similarity: Tensor) -> Tensor:
    """Return the highest similarities (B, 1, h, w) of images, but for outliers: (B,)."""
    return similarity.flatten(1).quantile(PEAK, dim=1)


def refine(logits: Tensor, pixels: PixelFeatures) -> Tensor:
    """Move borders in logits (B, H, W) to edges of the image, by a guided filter (He et al. 2013).

    The guide is the lightness on the grid: in each window the logits are fitted as a line of it.
    """
    guide = pixels.filters[:, :1]
    coarse = resize(logits[:, None], (GRID, GRID))
    mean, guide_mean = window_mean(coarse), window_mean(guide)
    variance = window_mean(guide**2) - guide_mean**2
    slope = (window_mean(guide * coarse) - guide_mean * mean) / (variance + REFINE_EPS)
    offset = mean - slope * guide_mean
    refined = window_mean(slope) * guide + window_mean(offset)
    return resize(refined, logits.shape[-2:])[:, 0]


def window_mean(maps: Tensor) -> Tensor:
    """Return the mean of maps (B, C, H, W) in a window around each position, smaller at the border."""
    side = 2 * REFINE_RADIUS + 1
    for kernel, padding in (((side, 1), (REFINE_RADIUS, 0)), ((1, side), (0, REFINE_RADIUS))):
        maps = F.avg_pool2d(maps, kernel, 1, padding, count_include_pad=False)
    return maps


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
