"""HSNet with one backbone or two: the matching that the two-pass method repeats.

Min, Kang & Cho 2021, "Hypercorrelation Squeeze for Few-Shot Segmentation", gives the network for one
backbone. With B_cls and B_sem both, it is the row "with B_cls + B_sem" of Karimi & Poullis 2024, Table 5.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from kshot.errors import ModelError
from kshot.methods.base import Method, register_method
from kshot.methods.config import ModelConfig
from kshot.models.backbones import STRIDES, Backbone, FeaturePyramid
from kshot.models.choices import CHANNELS, MaskPosition
from kshot.models.decoder import Decoder
from kshot.models.encoder import Encoder
from kshot.models.hypercorrelation import (
    NormalizedFeatures,
    correlate,
    normalize_features,
)
from kshot.models.prior import NUM_MAPS, support_prior
from kshot.types import Prediction, Support


class BackboneFeatures(NamedTuple):
    """Features of an image: normalized ones of each backbone, None for one that is not used.

    base_logits: (B, 1 + base classes, h, w) of H_cls; None without H_cls.
    """

    cls: NormalizedFeatures | None
    sem: NormalizedFeatures | None
    base_logits: Tensor | None = None


SETTINGS = {"mask_position", "channels", "threshold", "center_features", "first_stride", "prior"}
"""Settings of a model's config that hsnet and two-pass take unchanged."""


@register_method("hsnet")
class HSNet(Method):
    """Match query and support by hypercorrelation, with one backbone or both.

    cls_backbone: B_cls, an ImageNet classifier. sem_backbone: B_sem, the backbone of a PSPNet trained on
    base classes. Both share encoder and decoder; `joint_decoder` (Dec2) gets both matches.
    mask_position: see `hypercorrelation`; HSNet's published weights need "before".
    channels: the encoder's width; see `encoder.CHANNELS`. threshold: foreground probability above which a
    pixel is part of the mask; 0.5 is the paper's argmax.
    center_features: subtract each backbone's mean features, `cls_means` and `sem_means` (C of all taps
    together,), which are part of the weights and 0 until training measures them. Not in the paper.
    first_stride: stride of the finest matched stage, 8 (paper) or 16, which is faster and coarser.
    prior: the decoders also get the similarity of the query to the support's object and to the rest; see
    `models.prior`. Not in the paper.
    """

    matching_modules = ("encoder", "decoder", "joint_decoder")

    cls_means: Tensor | None
    sem_means: Tensor | None

    @classmethod
    def from_config(cls, config: ModelConfig, cls_backbone: Callable[[], Backbone]) -> Self:
        """Build the network that a config describes."""
        sem = None
        if config.backbones != "cls":
            sem = Backbone(config.backbone, output_stride=config.base_stride)
        return cls(
            cls_backbone() if config.backbones != "sem" else None,
            sem,
            **config.model_dump(include=SETTINGS),
        )

    def __init__(
        self,
        cls_backbone: Backbone | None = None,
        sem_backbone: Backbone | None = None,
        *,
        mask_position: MaskPosition = "after",
        channels: Sequence[int] = CHANNELS,
        threshold: float = 0.5,
        center_features: bool = False,
        first_stride: int = STRIDES[0],
        prior: bool = False,
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.cls_backbone = cls_backbone
        self.sem_backbone = sem_backbone
        self.mask_position: MaskPosition = mask_position
        self.num_stages = len(STRIDES) - STRIDES.index(first_stride)
        self.encoder = Encoder(self._taps_per_stage()[-self.num_stages :], channels)
        self.decoder = Decoder(self.encoder.out_channels)
        self.prior = nn.Conv2d(NUM_MAPS, self.encoder.out_channels, 1) if prior else None
        if self.prior is not None:
            for weight in self.prior.parameters():  # training starts from the network without a prior
                nn.init.zeros_(weight)
        both = cls_backbone is not None and sem_backbone is not None
        self.joint_decoder = Decoder(2 * self.encoder.out_channels) if both else None
        for name, backbone in zip(("cls_means", "sem_means"), self.backbones, strict=True):
            means = None
            if center_features and backbone is not None:
                counted = backbone if self.cls_backbone is None else self.cls_backbone
                means = torch.zeros(counted.num_tap_channels)
            self.register_buffer(name, means)

    @property
    def matcher(self) -> Self:
        """The network that matches: itself; in two-pass it is a part."""
        return self

    def _taps_per_stage(self) -> tuple[int, ...]:
        used = [backbone for backbone in self.backbones if backbone is not None]
        if not used:
            raise ModelError("HSNet has no backbone. Give cls_backbone, sem_backbone, or both.")
        taps = {backbone.name: backbone.taps_per_stage for backbone in used}
        if len(set(taps.values())) > 1:
            raise ModelError(
                f"The two backbones have different taps ({taps}), but they share one encoder. "
                "Use the same architecture for both."
            )
        return used[0].taps_per_stage

    def forward(self, query_images: Tensor, support_images: Tensor, support_mask: Tensor) -> Prediction:
        """Segment a batch of 1-shot episodes: images (B, 3, H, W) in [0, 1], mask (B, 1, H, W)."""
        query, support = self.features(query_images), self.features(support_images)
        return self.match(query, Support(support, support_mask))

    def features(self, images: Tensor) -> BackboneFeatures:
        """Extract features of images (B, 3, H, W) in [0, 1] with each backbone."""
        return self.normalize(*(None if b is None else b(images) for b in self.backbones))

    def support_features(self, images: Tensor) -> BackboneFeatures:
        """Extract the features of support images (B, 3, H, W) in [0, 1] that matching needs."""
        return self.normalize(*(None if b is None else b.support_pyramid(images) for b in self.backbones))

    def normalize(self, cls: FeaturePyramid | None, sem: FeaturePyramid | None) -> BackboneFeatures:
        """Normalize each backbone's features for matching."""
        return BackboneFeatures(
            None if cls is None else normalize_features(cls, self.cls_means),
            None if sem is None else normalize_features(sem, self.sem_means),
        )

    def match(
        self, query: BackboneFeatures, support: Support, episode_class: Tensor | None = None
    ) -> Prediction:
        """Match query and support features by each backbone, then by both together (eqs. 1-8)."""
        encoded = [
            self.encode(of_query, of_support, support.mask)
            for of_query, of_support in zip(query[:2], support.features[:2], strict=True)
            if of_query is not None and of_support is not None
        ]
        if self.joint_decoder is None:
            return Prediction(final=self.decoder(encoded[0]))
        cls, sem = (self.decoder(one) for one in encoded)
        combined = self.joint_decoder(torch.cat(encoded, dim=1))
        return Prediction(final=combined, cls=cls, sem=sem, combined=combined)

    def encode(self, query: NormalizedFeatures, support: NormalizedFeatures, masks: Tensor) -> Tensor:
        """Correlate and encode, with K masks (B, K, H, W) of the support: (B K, C, h, w) at stride 8."""
        correlations = correlate(query, support, masks, mask_position=self.mask_position)
        encoded: Tensor = self.encoder(correlations[: self.num_stages])
        if self.prior is not None:
            encoded = encoded + self.prior(support_prior(query, support, masks, encoded.shape[-2:]))
        return encoded

    def pyramid(self, features: BackboneFeatures) -> FeaturePyramid:
        """Return the features of B_cls, or of B_sem if that is the only one."""
        normalized = features.sem if features.cls is None else features.cls
        assert normalized is not None  # hsnet has one of the two
        return FeaturePyramid(normalized.stages(), None)
