"""Few-shot segmentation methods, and how to add your own: `Method`, `register_method`."""

from typing import TYPE_CHECKING

from kshot.lazy import lazy_names

if TYPE_CHECKING:
    from kshot.methods.base import METHODS, Method, register_method
    from kshot.methods.config import ModelConfig
    from kshot.methods.episode import EpisodeRunner
    from kshot.methods.hsnet import HSNet
    from kshot.methods.prototype import Prototype
    from kshot.methods.saving import load_model, save_model
    from kshot.methods.two_pass import TwoPass
    from kshot.methods.voting import segment_by_vote
    from kshot.types import Prediction, Segmentation, Support

__all__ = [
    "METHODS", "EpisodeRunner", "HSNet", "Method", "ModelConfig", "Prediction", "Prototype",
    "Segmentation", "Support", "TwoPass", "load_model", "register_method", "save_model",
    "segment_by_vote",
]  # fmt: skip

__getattr__ = lazy_names(
    __name__,
    {
        "kshot.methods.base": "METHODS Method register_method",
        "kshot.methods.config": "ModelConfig",
        "kshot.methods.episode": "EpisodeRunner",
        "kshot.methods.hsnet": "HSNet",
        "kshot.methods.saving": "load_model save_model",
        "kshot.methods.prototype": "Prototype",
        "kshot.methods.two_pass": "TwoPass",
        "kshot.methods.voting": "segment_by_vote",
        "kshot.types": "Prediction Segmentation Support",
    },
)
