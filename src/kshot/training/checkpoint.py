"""Checkpoints: what a run needs to go on as if it had never stopped, in one file, whole or not at all.

What is drawn at a step (episodes, changes, dropout) depends on the seed and the step alone, so weights,
optimiser and step are all the state there is.
"""

from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kshot.errors import WeightsError, reason_of
from kshot.io.files import write_bytes


class Checkpoint(NamedTuple):
    """The state of a run after `step` steps.

    phase: which of the run's phases it is in. learner, average: state dicts of the weights that are learned,
    and of their moving average. recipe: the run's settings, as JSON.
    """

    phase: int
    step: int
    learner: dict[str, Tensor]
    optimiser: dict[str, Any]
    average: dict[str, Tensor] | None
    recipe: str


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; until it is whole, an earlier one keeps its name."""
    content = BytesIO()
    torch.save(checkpoint._asdict(), content)
    write_bytes(content.getbuffer(), path)


def read_checkpoint(path: Path, recipe: str) -> Checkpoint:
    """Read a checkpoint of a run of this very recipe (its JSON); runs no code from the file.

    Raises WeightsError if it is missing, damaged, or of another recipe.
    """
    if not path.exists():
        raise WeightsError(f"There is no checkpoint {path} to resume from. Leave out --resume.")
    try:
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file can make a parser fail in any way at all
        raise WeightsError(f"{path} is not a checkpoint that can be read ({reason_of(error)}).") from error
    if checkpoint.recipe != recipe:
        raise WeightsError(
            f"The run in {path.parent} was started with other settings (recipe.json there). "
            "Resume it with the same options, or give another --out."
        )
    return checkpoint
