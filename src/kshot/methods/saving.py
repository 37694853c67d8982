"""Models on disk: a folder with `config.json` and, if something was learned, `model.safetensors`.

The ImageNet backbone is not in the file: the config names it, with the digest of its weights.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ValidationError
from safetensors.torch import save
from torch import Tensor

from kshot.errors import ModelError, WeightsError, fault_of
from kshot.io.files import write_bytes, write_text
from kshot.methods.base import METHODS, Method
from kshot.methods.config import ModelConfig
from kshot.methods.hub import CONFIG_FILE, WEIGHTS_FILE, find_folder
from kshot.models.backbones import Backbone
from kshot.models.imagenet_weights import (
    load_backbone,
    load_strictly,
    read_state,
    state_sha256,
    weights_sha256,
)


def build_method(config: ModelConfig, cls_backbone: Callable[[], Backbone] | None = None) -> Method:
    """Build a config's method with random learned weights.

    cls_backbone: makes B_cls, with its weights; None: with random ones.
    Raises ModelError for an unknown method, or a config that it cannot be built from.
    """
    return METHODS[config.method].from_config(config, cls_backbone or partial(_random_backbone, config))


def imagenet_backbone(config: ModelConfig, weights: str | Path | None = None) -> Backbone:
    """Load a config's B_cls with its ImageNet weights; see `load_backbone`."""
    return load_backbone(config.backbone, weights)


def _random_backbone(config: ModelConfig) -> Backbone:
    return Backbone(config.backbone)


def load_model(
    name_or_path: str | Path,
    backbone: str | None = None,
    backbone_weights: str | Path | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[ModelConfig, Method]:
    """Load a model that ships with kshot, a folder, or a repository on the hub, ready to segment.

    backbone: another backbone than the model's, for methods that learn nothing. backbone_weights: a file
    with its ImageNet weights. revision, token, cache_dir: of the hub.
    Raises ModelError if there is no such model or its config is broken, WeightsError if weights are
    missing, unreadable, or not those that the model was trained with.
    """
    folder = find_folder(name_or_path, revision=revision, token=token, cache_dir=cache_dir)
    config = read_config(folder / CONFIG_FILE)
    if backbone is not None:
        config = _exchange_backbone(config, backbone)
    method = build_method(config, partial(imagenet_backbone, config, backbone_weights))
    cls_backbone, _ = method.backbones
    if cls_backbone is not None and config.backbone_sha256 is not None:
        _check_digest(config, cls_backbone)
    if learned_weights(method):
        path = folder / WEIGHTS_FILE
        learned = read_state(path)
        state = learned | _backbone_state(method)
        if config.base_learner is not None:
            state |= _read_base_learner(config, folder, method)
        load_strictly(method, state, what=f"Weights in {path}")
        _check_learned(config, learned, path)
    return config, method.eval()


def save_model(config: ModelConfig, method: Method, folder: Path, *, half: bool = False) -> None:
    """Write a model's folder: the learned weights, then the config, each atomically.

    half: write the weights in half precision. A base learner's folder that the config names is not written.
    """
    cls_backbone, _ = method.backbones
    if cls_backbone is not None:
        digest = weights_sha256(cls_backbone)
        config = config.model_copy(update={"backbone_sha256": digest})
    elsewhere = {} if config.base_learner is None else base_learner_names(method)
    learned = {key: value for key, value in learned_weights(method).items() if key not in elsewhere}
    if learned:
        digest = write_weights(learned, folder / WEIGHTS_FILE, half=half)
        config = config.model_copy(update={"weights_sha256": digest})
    write_config(config, folder / CONFIG_FILE)


def write_weights(state: dict[str, Tensor], path: Path, *, half: bool) -> str:
    """Write weights atomically, if `half` in half precision except for vectors; return their digest.

    Vectors are few, and a BatchNorm's variance can be too small for half precision.
    """

    def kept(value: Tensor) -> Tensor:
        value = value.half() if half and value.is_floating_point() and value.ndim > 1 else value
        return value.contiguous()

    written = {key: kept(value) for key, value in state.items()}
    write_bytes(save(written), path)  # save_file would make files that only the owner can read
    return state_sha256(written)


def write_config(config: BaseModel, path: Path) -> None:
    """Write a config atomically."""
    write_text(config.model_dump_json(indent=2) + "\n", path)


def base_learner_names(method: Method) -> dict[str, str]:
    """Return the names in a PSPNet of a method's weights that belong to its base learner."""
    return _base_learner_names(method.state_dict())


def to_base_learner(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the PSPNet's weights from a method's."""
    return {name: state[key] for key, name in _base_learner_names(state).items()}


def learned_weights(method: Method) -> dict[str, Tensor]:
    """Return the weights that belong to the model: all except B_cls, which is downloaded or installed."""
    frozen = _backbone_state(method)
    return {key: value for key, value in method.state_dict().items() if key not in frozen}


def folder_sha256(folder: Path) -> str:
    """Return the digest of the weights in a model's or a base learner's folder."""
    return state_sha256(read_state(folder / WEIGHTS_FILE))


def read_config(path: Path) -> ModelConfig:
    """Read and check a config file. Raises ModelError that says what is wrong."""
    try:
        return ModelConfig.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"Folder {path.parent} holds no model: there is no {path.name} in it.") from None
    except ValidationError as error:
        raise ModelError(f"{path} is not a model's config: {fault_of(error)}.") from error


def _base_learner_names(keys: Iterable[str]) -> dict[str, str]:
    parts = {"matcher.sem_backbone.": "backbone.", "sem_backbone.": "backbone.", "base_head.": "head."}
    return {
        key: part + key.removeprefix("network.").removeprefix(prefix)
        for key in keys
        for prefix, part in parts.items()
        if key.removeprefix("network.").startswith(prefix)
    }


def _backbone_state(method: Method) -> dict[str, Tensor]:
    state = method.state_dict()
    return {key: state[key] for key in state if "cls_backbone" in key.split(".")}


def _read_base_learner(config: ModelConfig, folder: Path, method: Method) -> dict[str, Tensor]:
    path = folder / str(config.base_learner) / WEIGHTS_FILE
    state = read_state(path)
    digest = state_sha256(state)
    if digest != config.base_learner_sha256:
        raise WeightsError(
            f"{path} is not the base learner that the model in {folder} was trained with: sha256 is "
            f"{digest[:12]}…, its config says {str(config.base_learner_sha256)[:12]}…."
        )
    return {key: state[name] for key, name in base_learner_names(method).items() if name in state}


def _exchange_backbone(config: ModelConfig, backbone: str) -> ModelConfig:
    if METHODS[config.method].needs_training:
        raise ModelError(
            f"A trained {config.method} model works with its own backbone only, {config.backbone}; "
            "prototype takes any. Leave out --backbone, give --model prototype, or train a model with it."
        )
    return config.model_copy(update={"backbone": backbone, "backbone_sha256": None})


def _check_learned(config: ModelConfig, learned: dict[str, Tensor], path: Path) -> None:
    digest = state_sha256(learned)
    if config.weights_sha256 not in (None, digest):
        raise WeightsError(
            f"{path} is damaged, or not the file that its config was saved with: sha256 is {digest[:12]}…, "
            f"the config says {str(config.weights_sha256)[:12]}…. Copy the model's folder again."
        )


def _check_digest(config: ModelConfig, backbone: Backbone) -> None:
    digest = weights_sha256(backbone)
    if digest != config.backbone_sha256:
        raise WeightsError(
            f"The model was made with other weights of {backbone.name}: sha256 is {digest[:12]}…, "
            f"its config says {str(config.backbone_sha256)[:12]}…. Pass the right file with "
            "--backbone-weights."
        )
