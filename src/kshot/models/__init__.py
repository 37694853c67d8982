"""The network of the paper, one file per step.

    backbones -> hypercorrelation -> encoder (conv4d) -> decoder -> fusion with the base learner's map

Each file computes its step as the paper prints it. `kernels` computes the same numbers faster and is used by
default; `kernels.disabled()` switches it off.

A name's suffix gives its axes, as in `cosines_BHWUV`:

    B batch                       H W query rows and columns
    K masks of one support        U V support rows and columns
    L taps of a stage             C O input and output channels
"""

from typing import TYPE_CHECKING

from kshot.lazy import lazy_names

if TYPE_CHECKING:
    from kshot.models.backbones import Backbone, FeaturePyramid
    from kshot.models.base_learner import PSPNet, PyramidPoolingHead, base_map
    from kshot.models.conv4d import CenterPivotConv4d
    from kshot.models.decoder import Decoder
    from kshot.models.encoder import Encoder
    from kshot.models.fusion import BothPasses, Fusion
    from kshot.models.hypercorrelation import Correlation, NormalizedFeatures, correlate, normalize_features
    from kshot.models.imagenet_weights import load_backbone
    from kshot.models.losses import training_losses
    from kshot.models.prior import support_prior

__all__ = [
    "Backbone", "BothPasses", "CenterPivotConv4d", "Correlation", "Decoder", "Encoder", "FeaturePyramid",
    "Fusion", "NormalizedFeatures", "PSPNet", "PyramidPoolingHead", "base_map", "correlate",
    "load_backbone", "normalize_features", "support_prior", "training_losses",
]  # fmt: skip

__getattr__ = lazy_names(
    __name__,
    {
        "kshot.models.backbones": "Backbone FeaturePyramid",
        "kshot.models.base_learner": "PSPNet PyramidPoolingHead base_map",
        "kshot.models.conv4d": "CenterPivotConv4d",
        "kshot.models.decoder": "Decoder",
        "kshot.models.encoder": "Encoder",
        "kshot.models.fusion": "BothPasses Fusion",
        "kshot.models.hypercorrelation": "Correlation NormalizedFeatures correlate normalize_features",
        "kshot.models.imagenet_weights": "load_backbone",
        "kshot.models.losses": "training_losses",
        "kshot.models.prior": "support_prior",
    },
)
