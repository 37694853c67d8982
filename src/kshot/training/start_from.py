"""Train on from another model: what of its weights a network takes over."""

from pathlib import Path

import torch
from torch import Tensor

from kshot.errors import ModelError
from kshot.methods.config import ModelConfig
from kshot.methods.hsnet import HSNet
from kshot.methods.hub import CONFIG_FILE, WEIGHTS_FILE, find_folder, load_model, read_config
from kshot.methods.two_pass import TwoPass
from kshot.models.backbones import timm_name
from kshot.models.imagenet_weights import load_strictly
from kshot.training.recipes import TrainConfig

FROZEN = tuple(
    f"method.{part}."
    for part in ("cls_backbone", "sem_backbone", "matcher.cls_backbone", "matcher.sem_backbone", "base_head")
)
"""What a meta-learner holds, but never learns."""

FINEST = ("encoder.squeeze.2.", "encoder.mix.1.")
"""What a network learns for stride 8 alone."""


def find_start(config: TrainConfig, name_or_dir: str | Path) -> Path:
    """Find the folder of a model to train on from. Raises ModelError if there is none of that kind."""
    folder = find_folder(name_or_dir)
    given = read_config(folder / CONFIG_FILE)
    if given.method == "prototype":
        raise ModelError(f"Model '{name_or_dir}' is prototype, which learns nothing. Start from two-pass.")
    theirs, ours = _kind(given), _kind(config)
    if (given.method, config.method) == ("hsnet", "two-pass"):
        theirs = (config.method, *theirs[1:])  # all that it has is part of the other
    kinds = zip(("method", "backbone", "channels of the encoder"), theirs, ours, strict=True)
    differ = [f"{what} {their}, not {our}" for what, their, our in kinds if their != our]
    if differ:
        raise ModelError(
            f"Model '{name_or_dir}' cannot be trained on: it has {'; '.join(differ)}. Give the --method, "
            "--backbone and --recipe that it was trained with."
        )
    return folder


def fill_from(
    folder: Path, config: TrainConfig, method: HSNet | TwoPass, backbone_weights: Path | None
) -> None:
    """Give a method what the model in a folder has learnt; what that does not have stays as it is.

    Raises ModelError or WeightsError as `load_model` does, and WeightsError for parts that `method` has not.
    """
    theirs, start = load_model(folder, backbone_weights=backbone_weights)
    becomes = "matcher." if theirs.method == "hsnet" and config.method == "two-pass" else ""
    state = {f"{becomes}{key}": value for key, value in start.state_dict().items()}
    learned = {k: v for k, v in state.items() if not f"method.{k}".startswith(FROZEN)}
    given = _fitting(learned, theirs, config)
    if _is_other_base_learner(state, method.state_dict()):
        given = {key: value for key, value in given.items() if not key.endswith("sem_means")}
    load_strictly(method, method.state_dict() | given, what=f"Weights in {folder / WEIGHTS_FILE}")


def _is_other_base_learner(theirs: dict[str, Tensor], ours: dict[str, Tensor]) -> bool:
    """Say whether B_sem's weights differ: its mean features then have to be measured again."""
    shared = [key for key in theirs.keys() & ours.keys() if "sem_backbone." in key]
    return not all(torch.equal(theirs[key], ours[key]) for key in shared)


def _fitting(given: dict[str, Tensor], theirs: ModelConfig, ours: TrainConfig) -> dict[str, Tensor]:
    """Leave out what a network does not have that matches fewer stages, or merges otherwise."""

    def fits(key: str) -> bool:
        is_finest = key.removeprefix("matcher.").startswith(FINEST)
        is_other_fusion = key.startswith("fusion.") and theirs.fusion != ours.fusion
        return not ((is_finest and ours.first_stride > theirs.first_stride) or is_other_fusion)

    return {key: value for key, value in given.items() if fits(key)}


def _kind(config: TrainConfig | ModelConfig) -> tuple[str, str, tuple[int, ...]]:
    return config.method, timm_name(config.backbone), config.channels
