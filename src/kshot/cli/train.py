"""`kshot train`: train a meta-learner."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kshot.cli.options import BackboneWeights, Device, Root
from kshot.cli.training import (
    Out,
    RecipeName,
    RecipeSettings,
    Resume,
    TrainingData,
    TrainingFold,
    lacks_holdout_classes,
    read_run,
)
from kshot.errors import DataError

if TYPE_CHECKING:
    from kshot.data.folder import Folder

EXAMPLES = (
    "kshot train --data pascal --root VOC2012 --fold 0 --base-learner runs/base --out runs/two-pass",
    "kshot train --data my-folder --start-from two-pass --set lr=5e-4 --set sizes.0.steps=200 --out mine",
)


def train(
    context: typer.Context,
    out: Out,
    root: Root = None,
    recipe: RecipeName = "lite",
    settings: RecipeSettings = None,
    data: TrainingData = None,
    fold: TrainingFold = None,
    base_learner: Annotated[
        list[str] | None,
        typer.Option(
            help="Base learner from kshot pretrain, or a model that has one; default: that of --start-from. "
            "Repeatable: further ones encode the episodes whose class the earlier ones know.",
            metavar="DIR_OR_MODEL",
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(help="Model to start from instead of random weights.", metavar="DIR_OR_MODEL"),
    ] = None,
    extra_data: Annotated[
        list[str] | None,
        typer.Option(
            help="Another data set to draw episodes from (repeatable): a folder of images/ and masks/, or "
            "coco-mini-60=DIR; for recipes that mix kinds of episodes.",
            metavar="DIR",
        ),
    ] = None,
    backbone_weights: BackboneWeights = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Train a meta-learner, hsnet or two-pass, on a fold's base classes, with frozen backbones."""
    from kshot.data.benchmarks import open_dataset
    from kshot.training.recipes import TrainConfig

    config, runtime, given = read_run(
        TrainConfig, recipe, settings, data=data, fold=fold, device=device, resume=resume
    )
    if (
        config.select_on == "base"
        and "select_on" not in given
        and lacks_holdout_classes(config.data, config.fold)
    ):
        config = config.model_copy(update={"select_on": None})
    extra = dict(extra_data_set(text) for text in extra_data or ())
    if extra and config.mix is None:
        raise DataError("--extra-data is for recipes that mix kinds of episodes: --recipe lite-general.")
    dataset = open_dataset(config.data, root)

    from kshot.training.meta_train import train as run
    from kshot.training.trainer import leave_processes

    typer.echo(f"Training into {out}. It can take minutes until the first line of progress.")
    run(
        config,
        dataset,
        out,
        runtime,
        base_learners=base_learner or (),
        extra=extra,
        start_from=start_from,
        backbone_weights=backbone_weights,
        arguments=tuple(context.obj),
    )
    leave_processes()
    typer.echo(f"The model is in {out}: kshot segment --model {out} …")


def extra_data_set(text: str) -> "tuple[str, Folder]":
    """Return the name and images of a further data set: a folder, or coco-mini-60=DIR."""
    from kshot.data.folder import COCO_MINI, Folder
    from kshot.data.folds import COCO_CLASSES

    name, _, place = text.rpartition("=")
    root = Path(place)
    if name not in ("", COCO_MINI):
        raise DataError(f"--extra-data is '{text}'; give a folder, or {COCO_MINI}=DIR.")
    return name or root.name, Folder(root, COCO_CLASSES if name else ())
