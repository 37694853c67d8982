"""Start a training from another model: which of its weights are loaded."""

from pathlib import Path

import torch
from torch import Tensor

from kshot.errors import ModelError
from kshot.methods.config import ModelConfig
from kshot.methods.hsnet import HSNet
from kshot.methods.hub import CONFIG_FILE, WEIGHTS_FILE, find_folder
from kshot.methods.saving import load_model, read_config
from kshot.methods.two_pass import TwoPass
from kshot.models.backbones import timm_name
from kshot.models.imagenet_weights import load_strictly
from kshot.training.recipes import TrainConfig

FROZEN = tuple(
    f"method.{part}."
    for part in ("cls_backbone", "sem_backbone", "matcher.cls_backbone", "matcher.sem_backbone", "base_head")
)
"""Prefixes of a meta-learner's frozen weights."""

FINEST = ("encoder.squeeze.2.", "encoder.mix.1.")
"""Prefixes of the weights for stride 8."""


def find_start(config: TrainConfig, name_or_dir: str | Path) -> Path:
    """Return the folder of a model to start from. Raises ModelError if there is none of this kind."""
    folder = find_folder(name_or_dir)
    given = read_config(folder / CONFIG_FILE)
    if given.method == "prototype":
        raise ModelError(f"Model '{name_or_dir}' is prototype, which has no training. Start from two-pass.")
    source, target = _kind(given), _kind(config)
    if (given.method, config.method) == ("hsnet", "two-pass"):
        source = (config.method, *source[1:])  # a two-pass contains an hsnet
    kinds = zip(("method", "backbone", "channels of the encoder"), source, target, strict=True)
    differences = [f"{what} {one}, not {other}" for what, one, other in kinds if one != other]
    if differences:
        raise ModelError(
            f"The training cannot start from model '{name_or_dir}': it has {'; '.join(differences)}. Give "
            "the recipe that it was trained with, or --set method=… and backbone=…."
        )
    return folder


def load_start(
    folder: Path, config: TrainConfig, method: HSNet | TwoPass, backbone_weights: Path | None
) -> None:
    """Load the trained weights of the model in a folder into a method; other weights keep their values.

    Raises ModelError or WeightsError as `load_model` does, and WeightsError for parts that `method` lacks.
    """
    model, start = load_model(folder, backbone_weights=backbone_weights)
    prefix = "matcher." if model.method == "hsnet" and config.method == "two-pass" else ""
    state = {f"{prefix}{key.removeprefix('network.')}": value for key, value in start.state_dict().items()}
    trained = {k: v for k, v in state.items() if not f"method.{k}".startswith(FROZEN)}
    usable = _usable(trained, model, config)
    if _has_other_base_learner(state, method.state_dict()):
        usable = {key: value for key, value in usable.items() if not key.endswith("sem_means")}
    load_strictly(method, method.state_dict() | usable, what=f"Weights in {folder / WEIGHTS_FILE}")


def _has_other_base_learner(source: dict[str, Tensor], target: dict[str, Tensor]) -> bool:
    """Return whether B_sem's weights differ: its mean features are then measured again."""
    shared = [key for key in source.keys() & target.keys() if "sem_backbone." in key]
    return not all(torch.equal(source[key], target[key]) for key in shared)


def _usable(trained: dict[str, Tensor], source: ModelConfig, target: TrainConfig) -> dict[str, Tensor]:
    """Return the weights without those of a stage or a fusion that the new network does not have."""

    def fits(key: str) -> bool:
        is_finest = key.removeprefix("matcher.").startswith(FINEST)
        is_other_fusion = key.startswith("fusion.") and source.fusion != target.fusion
        return not ((is_finest and target.first_stride > source.first_stride) or is_other_fusion)

    return {key: value for key, value in trained.items() if fits(key)}


def _kind(config: TrainConfig | ModelConfig) -> tuple[str, str, tuple[int, ...]]:
    method = "two-pass" if config.method == "adaptive" else config.method  # its network
    return method, timm_name(config.backbone), config.channels
