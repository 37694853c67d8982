"""Choose among checkpoints on episodes of holdout classes: base classes that training excluded.

The field chooses on the novel fold itself, so its numbers are the best of many evaluations on the test. That
is possible here too, but is recorded in the model and printed beside each of its scores.
"""

from typing import Literal

from kshot.data.base import Dataset
from kshot.data.base_classes import holdout_classes, train_fold
from kshot.data.benchmarks import read_fold
from kshot.data.folds import FOLDED
from kshot.data.manifest import Manifest, draw_manifest
from kshot.data.protocols import Protocol, preset
from kshot.data.sampling import Fold
from kshot.errors import DataError

SelectOn = Literal["base", "novel"]


def selection_fold(benchmark: str, fold: int, select_on: SelectOn) -> Fold:
    """Return the pairs that checkpoints for a fold are chosen on.

    select_on: "base", the holdout classes in the train lists; "novel", the fold's own test.
    Raises DataError if there are no such classes.
    """
    if select_on == "base":
        return train_fold(benchmark, fold, exclude_holdout=False).only(holdout_classes(benchmark, fold))
    if benchmark not in FOLDED:
        raise DataError(f"{benchmark} has no folds, so no novel classes. Choose on 'base' or on 'nothing'.")
    return read_fold(benchmark, fold)


def selection_manifest(
    fold: Fold, num_episodes: int, dataset: Dataset, seed: int = 0
) -> tuple[Manifest, Protocol]:
    """Draw 1-shot episodes of `selection_fold` from the images that are on disk."""
    protocol = preset("balanced", fold.benchmark).model_copy(
        update={"num_episodes": num_episodes, "seeds": (seed,)}
    )
    return draw_manifest(fold, protocol, 1, seed, present=dataset), protocol


def check_holdout_classes(benchmark: str, fold: int, base_classes: tuple[str, ...]) -> None:
    """Raise DataError if a model's base learner was trained on the classes that select its checkpoint."""
    names = train_fold(benchmark, fold, exclude_holdout=False).class_names
    seen = [names[c] for c in holdout_classes(benchmark, fold) if names[c] in base_classes]
    if seen:
        raise DataError(
            f"The base learner was trained on {', '.join(seen)}, so they cannot select a checkpoint. "
            "Pretrain without these classes (--set exclude_holdout=true), train with --set select_on=null, "
            "or, if there are folds, with --set select_on=novel, which is then printed beside every number."
        )
