"""Base learners on disk: `kshot pretrain` writes a folder of `config.json` and `model.safetensors`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kshot.errors import ModelError, fault_of
from kshot.network.base_learner import PSPNet
from kshot.network.weights import fill, read_state
from kshot.pretrained import CONFIG_FILE, WEIGHTS_FILE, write_config, write_weights


class BaseLearnerConfig(BaseModel):
    """Everything but the weights of a trained PSPNet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    """Version of this file's layout."""
    backbone: str
    base_classes: tuple[str, ...]
    """What its head tells apart, in the order of its outputs; the background is output 0 and not named."""
    trained_on: str
    """The benchmark and fold, in words."""


def save_base_learner(config: BaseLearnerConfig, network: PSPNet, folder: Path) -> None:
    """Write a base learner's folder, in half precision, so that all that learns from it sees what ships."""
    write_weights(network.state_dict(), folder / WEIGHTS_FILE, half=True)
    write_config(config, folder / CONFIG_FILE)


def load_base_learner(folder: Path) -> tuple[BaseLearnerConfig, PSPNet]:
    """Read a base learner's folder: its config, and the frozen network at output stride 8.

    Raises ModelError if there is none or its config is broken, WeightsError if its weights don't fit.
    """
    path = folder / CONFIG_FILE
    try:
        config = BaseLearnerConfig.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"Folder {folder} holds no base learner: there is no {path.name} in it.") from None
    except ValidationError as error:
        raise ModelError(f"{path} is not a base learner's config: {fault_of(error)}.") from error
    network = PSPNet(config.backbone, len(config.base_classes))
    weights = folder / WEIGHTS_FILE
    fill(network, read_state(weights), what=f"Weights in {weights}")
    return config, network.eval()
