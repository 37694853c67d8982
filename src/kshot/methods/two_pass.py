"""The two-pass transductive method of Karimi & Poullis 2024 (Sci Rep 14:4028).

The first pass matches the support to the query with two backbones. In the second pass the query is its own
support, under the soft mask of the first: parts of one object are more similar than two objects of one class.
A map of base classes removes them from the prediction.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor

from kshot.errors import ModelError
from kshot.methods.base import Method, register_method
from kshot.methods.config import ModelConfig
from kshot.methods.hsnet import SETTINGS, BackboneFeatures, HSNet
from kshot.methods.voting import foreground
from kshot.models.backbones import STRIDES, Backbone, FeaturePyramid
from kshot.models.base_learner import PSPNet, PyramidPoolingHead, base_map, mask_class_logit
from kshot.models.choices import CHANNELS, FusionKind, MaskPosition
from kshot.models.fusion import BothPasses, Fusion
from kshot.types import Prediction, Support

LEAST = 1e-6
"""Lower bound of an image's largest probability, to avoid a division by 0."""


def sharpen(probability: Tensor) -> Tensor:
    """Square probabilities (B, 1, h, w), each map relative to its maximum: (B, 1, h, w), up to 1.

    The second pass weights positions by their probability. Low probabilities all over the background outweigh
    an object that covers a few per cent of the image; their squares do not.
    """
    largest = probability.amax(dim=(-2, -1), keepdim=True)
    return (probability / largest.clamp(min=LEAST)) ** 2


@register_method("two-pass")
class TwoPass(Method):
    """HSNet with two backbones, run twice, and merged with the base map.

    cls_backbone: B_cls. sem_backbone: B_sem. base_head: H_cls, the head of the PSPNet that B_sem belongs
    to; without it (a user's own model) the second pass is the prediction. channels: the encoder's width.
    threshold: foreground probability above which a pixel is part of the mask; 0.5 is the paper's argmax.
    sharpen_mask: sharpen the second pass's soft mask, which the paper does not do; see `sharpen`. fusion:
    "paper" merges the second pass with the base map, "both-passes" the first one too; see `models.fusion`.
    """

    is_transductive = True
    matching_modules = tuple(f"matcher.{name}" for name in HSNet.matching_modules)

    @classmethod
    def from_config(cls, config: ModelConfig, cls_backbone: Callable[[], Backbone]) -> Self:
        """Build the network that a config describes; without base classes it has no base map."""
        base_learner = PSPNet(config.backbone, len(config.base_classes), output_stride=config.base_stride)
        return cls(
            cls_backbone(),
            base_learner.backbone,
            base_learner.head if config.base_classes else None,
            **config.model_dump(include=SETTINGS | {"sharpen_mask", "fusion"}),
        )

    def __init__(
        self,
        cls_backbone: Backbone,
        sem_backbone: Backbone,
        base_head: PyramidPoolingHead | None,
        *,
        mask_position: MaskPosition = "after",
        channels: Sequence[int] = CHANNELS,
        threshold: float = 0.5,
        center_features: bool = False,
        first_stride: int = STRIDES[0],
        prior: bool = False,
        sharpen_mask: bool = False,
        fusion: FusionKind = "paper",
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.sharpen_mask = sharpen_mask
        self.matcher = HSNet(
            cls_backbone,
            sem_backbone,
            mask_position=mask_position,
            channels=channels,
            center_features=center_features,
            first_stride=first_stride,
            prior=prior,
        )
        self.base_head = base_head
        self.fusion: Fusion | BothPasses | None = None
        if base_head is not None:
            self.fusion = Fusion() if fusion == "paper" else BothPasses()

    @property
    def cls_backbone(self) -> Backbone:
        """B_cls: its weights are ImageNet's, not part of a trained model."""
        assert self.matcher.cls_backbone is not None
        return self.matcher.cls_backbone

    @property
    def sem_backbone(self) -> Backbone:
        """B_sem: the base learner's."""
        assert self.matcher.sem_backbone is not None
        return self.matcher.sem_backbone

    def forward(
        self,
        query_images: Tensor,
        support_images: Tensor,
        support_mask: Tensor,
        episode_class: Tensor | None = None,
    ) -> Prediction:
        """Segment a batch of 1-shot episodes: images (B, 3, H, W) in [0, 1], mask (B, 1, H, W).

        episode_class: (B,) index of each episode's base class; needed in training, unused otherwise.
        """
        query, support = self.features(query_images), self.features(support_images)
        return self.match(query, Support(support, support_mask), episode_class)

    def features(self, images: Tensor) -> BackboneFeatures:
        """Extract features of images (B, 3, H, W) in [0, 1] with both backbones, and with H_cls."""
        sem: FeaturePyramid = self.sem_backbone(images)
        features = self.matcher.normalize(self.cls_backbone(images), sem)
        return features._replace(base_logits=None if self.base_head is None else self.base_head(sem.last))

    def support_features(self, images: Tensor) -> BackboneFeatures:
        """Extract the features of support images (B, 3, H, W) in [0, 1] that matching needs; no base map."""
        return self.matcher.support_features(images)

    def match(
        self, query: BackboneFeatures, support: Support, episode_class: Tensor | None = None
    ) -> Prediction:
        """Predict from features that are already computed; see `forward`."""
        return self.match_each(query, [support], episode_class)[0]

    def match_each(
        self, query: BackboneFeatures, supports: Sequence[Support], episode_class: Tensor | None = None
    ) -> list[Prediction]:
        """Segment a query with each of K supports; the query is matched with itself once for all."""
        first = [self.first_pass(query, support) for support in supports]
        second = self.second_pass(query, [self.soft_mask(one.final) for one in first])
        base = self.base_map(query, episode_class)
        return [self.fuse(one, logits, base) for one, logits in zip(first, second, strict=True)]

    def first_pass(self, query: BackboneFeatures, support: Support) -> Prediction:
        """Match the query with a support by both backbones (eqs. 1-8)."""
        return self.matcher.match(query, support)

    def soft_mask(self, logits: Tensor) -> Tensor:
        """Return the query's own mask (B, 1, h, w) for the second pass, from the logits of the first."""
        probability = foreground(logits)
        return sharpen(probability) if self.sharpen_mask else probability

    def second_pass(self, query: BackboneFeatures, soft_masks: Sequence[Tensor]) -> list[Tensor]:
        """Match the query with itself (eqs. 10-12): B_sem only, gradients flow through the masks.

        soft_masks: K maps (B, 1, h, w). Returns K logits (B, 2, h, w).
        """
        assert query.sem is not None
        encoded = self.matcher.encode(query.sem, query.sem, torch.cat(list(soft_masks), dim=1))
        logits: Tensor = self.matcher.decoder(encoded)
        return list(logits.view(-1, len(soft_masks), *logits.shape[1:]).unbind(dim=1))

    def base_map(self, query: BackboneFeatures, episode_class: Tensor | None) -> Tensor | None:
        """Return the map of base classes (eq. 13); in training, without the episode's own class."""
        if self.base_head is None or query.base_logits is None:
            return None
        if self.training and episode_class is None:
            raise ModelError(
                "In training, two-pass needs episode_class (B,), the index of each episode's base class: in "
                "the base map, the target would suppress itself. Or call .eval() first."
            )
        return base_map(query.base_logits, episode_class if self.training else None)

    def fuse(self, first: Prediction, second: Tensor, base: Tensor | None) -> Prediction:
        """Merge the second pass with the base map (eqs. 14-15), or both passes with it."""
        final = second
        if base is not None and isinstance(self.fusion, Fusion):
            final = self.fusion(second, base)
        elif base is not None and self.fusion is not None:
            final = self.fusion(first.final, second, base)
        return first._replace(final=final, second=second, base_map=base)

    def pyramid(self, features: BackboneFeatures) -> FeaturePyramid:
        """Return the features of B_cls."""
        return self.matcher.pyramid(features)

    def without_class(self, query: BackboneFeatures, episode_class: Tensor) -> BackboneFeatures:
        """Return a query's features as if H_cls had not learned a base class (B,); -1 keeps all."""
        if query.base_logits is None:
            return query
        return query._replace(base_logits=mask_class_logit(query.base_logits, episode_class))
