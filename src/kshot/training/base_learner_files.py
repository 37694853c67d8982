"""Base learners on disk: `kshot pretrain` writes a folder with `config.json` and `model.safetensors`."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kshot.errors import ModelError, fault_of
from kshot.methods.hub import CONFIG_FILE, WEIGHTS_FILE, find_folder
from kshot.methods.saving import read_config, to_base_learner, write_config, write_weights
from kshot.models.base_learner import PSPNet
from kshot.models.imagenet_weights import load_strictly, read_state


class BaseLearnerConfig(BaseModel):
    """Everything but the weights of a trained PSPNet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    """Version of this file's layout."""
    backbone: str
    base_classes: tuple[str, ...]
    """Classes of the head's outputs 1, 2, …, in their order; output 0 is the background."""
    trained_on: str
    """The benchmark and fold, in words."""


def save_base_learner(config: BaseLearnerConfig, network: PSPNet, folder: Path) -> None:
    """Write a base learner's folder, in half precision."""
    write_weights(network.state_dict(), folder / WEIGHTS_FILE, half=True)
    write_config(config, folder / CONFIG_FILE)


def find_base_learner(name_or_dir: str | Path) -> Path:
    """Return the folder whose weights hold a base learner: its own, or that of a model with one.

    name_or_dir: a base learner's folder, or a model as `load_model` takes it. Raises ModelError for neither.
    """
    folder = find_folder(name_or_dir)
    if not _is_model(folder):
        return folder
    config = read_config(folder / CONFIG_FILE)
    if config.base_learner is not None:
        return folder / config.base_learner
    if config.method not in ("two-pass", "adaptive") or not config.base_classes:
        raise ModelError(
            f"Model '{name_or_dir}' ({config.method}) has no base learner. Give two-pass, another model "
            "of that method, or a folder that `kshot pretrain` made."
        )
    return folder


def load_base_learner(folder: Path, *, output_stride: int = 8) -> tuple[BaseLearnerConfig, PSPNet]:
    """Return a base learner's config and frozen network, from its folder or from that of a two-pass model.

    Raises ModelError if there is none or its config is broken, WeightsError if its weights don't fit.
    """
    path, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if _is_model(folder):
        model, state = read_config(path), to_base_learner(read_state(weights))
        config = BaseLearnerConfig(
            backbone=model.backbone, base_classes=model.base_classes, trained_on=f"the data of {folder.name}"
        )
    else:
        config, state = _read_config(path), read_state(weights)
    network = PSPNet(config.backbone, len(config.base_classes), output_stride=output_stride)
    load_strictly(network, state, what=f"Weights in {weights}")
    return config, network.eval()


LAST_LAYER = "head.classify.4.weight", "head.classify.4.bias"
"""The weights with one row per class; the rest of a base learner does not depend on the number of classes."""


def transfer_weights(
    config: BaseLearnerConfig, source: PSPNet, target: PSPNet, classes: tuple[str, ...]
) -> None:
    """Copy a base learner's weights into a network for other classes, given in the order of its outputs.

    Outputs of classes that the base learner was not trained on keep their weights.
    """
    state, before = source.state_dict(), target.state_dict()
    known = config.base_classes
    rows = [(0, 0), *((n + 1, known.index(c) + 1) for n, c in enumerate(classes) if c in known)]
    for key in LAST_LAYER:
        rows_of_source, state[key] = state[key], before[key].clone()
        for row, row_of_source in rows:
            state[key][row] = rows_of_source[row_of_source]
    target.load_state_dict(state)


def drop_classes(
    config: BaseLearnerConfig, network: PSPNet, classes: Collection[str]
) -> tuple[BaseLearnerConfig, PSPNet]:
    """Return a base learner without some classes in its head, as if H_cls had never learned them."""
    kept = [index for index, name in enumerate(config.base_classes) if name not in classes]
    outputs = [0, *(index + 1 for index in kept)]
    smaller = PSPNet(
        config.backbone,
        len(kept),
        output_stride=network.backbone.output_stride,
    )
    state = network.state_dict()
    smaller.load_state_dict(state | {key: state[key][outputs] for key in LAST_LAYER})
    base_classes = tuple(config.base_classes[index] for index in kept)
    return config.model_copy(update={"base_classes": base_classes}), smaller.eval()


def _is_model(folder: Path) -> bool:
    """Return whether a folder holds a model and not a base learner; without a readable config, the latter."""
    try:
        content = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "method" in content


def _read_config(path: Path) -> BaseLearnerConfig:
    try:
        return BaseLearnerConfig.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ModelError(
            f"Folder {path.parent} holds no base learner: there is no {path.name} in it."
        ) from None
    except ValidationError as error:
        raise ModelError(f"{path} is not a base learner's config: {fault_of(error)}.") from error
