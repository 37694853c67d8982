"""Training of base learners and meta-learners."""

from typing import TYPE_CHECKING

from kshot.lazy import lazy_names

if TYPE_CHECKING:
    from kshot.training.meta_train import train
    from kshot.training.pretraining import pretrain
    from kshot.training.recipes import (
        PretrainConfig,
        Recipe,
        RuntimeArgs,
        TrainConfig,
        lite,
        lite_general,
        lite_two_pass,
        paper_coco,
        paper_pascal,
    )

__all__ = [
    "PretrainConfig", "Recipe", "RuntimeArgs", "TrainConfig", "lite", "lite_general", "lite_two_pass",
    "paper_coco", "paper_pascal", "pretrain", "train",
]  # fmt: skip

__getattr__ = lazy_names(
    __name__,
    {
        "kshot.training.meta_train": "train",
        "kshot.training.pretraining": "pretrain",
        "kshot.training.recipes": "PretrainConfig Recipe RuntimeArgs TrainConfig lite lite_general "
        "lite_two_pass paper_coco paper_pascal",
    },
)
