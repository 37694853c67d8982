"""Checkpoints: the state from which a run continues as if it had never stopped, in one file.

All random numbers of a step (episodes, augmentation, dropout) depend on the seed and the step alone, so
weights, optimizer and step are the whole state.
"""

import json
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kshot.errors import WeightsError, reason_of
from kshot.io.files import write_bytes
from kshot.training.recipes import with_new_names


class Checkpoint(NamedTuple):
    """The state of a run after `step` steps.

    phase: number of the run's phase. learner, average: state dicts of the trained weights, and of their
    moving average. recipe: the run's settings, as JSON.
    """

    phase: int
    step: int
    learner: dict[str, Tensor]
    optimiser: dict[str, Any]
    average: dict[str, Tensor] | None
    recipe: str


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: an earlier one is replaced when the new one is complete."""
    content = BytesIO()
    torch.save(checkpoint._asdict(), content)
    write_bytes(content.getbuffer(), path)


def read_checkpoint(path: Path, recipe: str) -> Checkpoint:
    """Read a checkpoint of a run with exactly this recipe (JSON); runs no code from the file.

    Raises WeightsError if it is missing, damaged, or of another recipe.
    """
    if not path.exists():
        raise WeightsError(f"There is no checkpoint {path} to resume from. Leave out --resume.")
    try:
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
        is_same = with_new_names(json.loads(checkpoint.recipe)) == json.loads(recipe)
    except Exception as error:  # a damaged file can make a parser fail in any way
        raise WeightsError(f"{path} is not a checkpoint that can be read ({reason_of(error)}).") from error
    if not is_same:
        raise WeightsError(
            f"The run in {path.parent} was started with other settings (recipe.json there). "
            "Resume it with the same options, or give another --out."
        )
    return checkpoint
