"""Choosing among checkpoints, honestly: on episodes of base classes that were held out of training.

The field chooses on the novel fold itself, so that its numbers are the best of many looks at the test. That
is possible here too, but it is written into the model and printed beside every number it makes.
"""

from typing import Literal

from kshot.benchmark.score import draw_manifest
from kshot.data.benchmarks import read_fold
from kshot.data.folds import NUM_FOLDS, held_out_classes
from kshot.data.manifest import Manifest
from kshot.data.protocols import Protocol, preset
from kshot.data.sampling import Fold
from kshot.data.truth import Dataset
from kshot.errors import DataError

SelectOn = Literal["base", "novel"]


def selection_fold(benchmark: str, fold: int, select_on: SelectOn) -> Fold:
    """Give what checkpoints for a fold are chosen on: "base" or "novel".

    base: held-out base classes, of the train lists; novel: the fold's own test.
    Raises DataError for a benchmark without base classes.
    """
    held_out = held_out_classes(benchmark, fold)
    if select_on == "novel":
        return read_fold(benchmark, fold)
    others = [read_fold(benchmark, n, "train").only(held_out) for n in range(NUM_FOLDS) if n != fold]
    return Fold(
        benchmark,
        "train",
        fold,
        others[0].class_names,
        {class_id: names for other in others for class_id, names in other.images.items()},
        tuple(query for other in others for query in other.queries),
    )


def selection_manifest(
    benchmark: str, fold: int, select_on: SelectOn, num_episodes: int, dataset: Dataset, seed: int = 0
) -> tuple[Manifest, Protocol]:
    """Draw 1-shot episodes to choose checkpoints on, from the photographs that are there."""
    protocol = preset("balanced", benchmark).model_copy(
        update={"num_episodes": num_episodes, "seeds": (seed,)}
    )
    pairs = selection_fold(benchmark, fold, select_on)
    return draw_manifest(pairs, protocol, 1, seed, present=dataset), protocol


def check_held_out(benchmark: str, fold: int, base_classes: tuple[str, ...]) -> None:
    """Raise DataError if a model's base learner was trained on the classes that it is to be chosen on."""
    names = read_fold(benchmark, fold).class_names
    seen = [names[c] for c in held_out_classes(benchmark, fold) if names[c] in base_classes]
    if seen:
        raise DataError(
            f"The base learner was trained on {', '.join(seen)}, so choosing on them is not honest. "
            "Train without these classes, or choose with --select-on novel, which every number then says."
        )
