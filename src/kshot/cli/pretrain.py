"""`kshot pretrain`: train a base learner."""

from typing import Annotated

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

EXAMPLES = (
    "kshot pretrain --data pascal --root VOC2012 --fold 0 --out runs/base",
    "kshot pretrain --data my-folder --set crop=321 --set phases.0.epochs=5 --out runs/base",
)


def pretrain(
    context: typer.Context,
    out: Out,
    root: Root = None,
    recipe: RecipeName = "lite",
    settings: RecipeSettings = None,
    data: TrainingData = None,
    fold: TrainingFold = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Base learner to start from instead of ImageNet weights; its classes can be others.",
            metavar="DIR_OR_MODEL",
        ),
    ] = None,
    backbone_weights: BackboneWeights = None,
    resume: Resume = False,
    device: Device = "auto",
) -> None:
    """Train a base learner: a PSPNet on a fold's base classes (B_sem and H_cls of two-pass)."""
    from kshot.data.benchmarks import open_dataset
    from kshot.training.recipes import PretrainConfig

    config, runtime, given = read_run(
        PretrainConfig, recipe, settings, data=data, fold=fold, device=device, resume=resume
    )
    if (
        config.exclude_holdout
        and "exclude_holdout" not in given
        and lacks_holdout_classes(config.data, config.fold)
    ):
        config = config.model_copy(update={"exclude_holdout": False})
    dataset = open_dataset(config.data, root)

    from kshot.training.pretraining import pretrain as run
    from kshot.training.trainer import leave_processes

    run(
        config,
        dataset,
        out,
        runtime,
        start_from=start_from,
        backbone_weights=backbone_weights,
        arguments=tuple(context.obj),
    )
    leave_processes()
    typer.echo(f"The base learner is in {out}.")
