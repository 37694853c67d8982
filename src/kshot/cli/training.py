"""What `kshot pretrain` and `kshot train` share: their options, and a run's settings from these."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from kshot.cli.options import DATA_HELP
from kshot.errors import DataError
from kshot.io.name_values import read_settings, setting_fault

if TYPE_CHECKING:
    from kshot.training.recipes import PretrainConfig, RuntimeArgs, TrainConfig

    Config = TypeVar("Config", PretrainConfig, TrainConfig)

Out = Annotated[Path, typer.Option(help="Folder of the run.", metavar="DIR")]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="lite, lite-two-pass, lite-general, paper-pascal, paper-coco; or a TOML or JSON file, such as "
        "the recipe.json of a run.",
        metavar="NAME_OR_FILE",
    ),
]
RecipeSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a setting of the recipe or the run (repeatable), as lr=5e-4; see docs/training.md.",
        metavar="NAME=VALUE",
    ),
]
TrainingData = Annotated[
    str | None,
    typer.Option("--data", help=f"{DATA_HELP[:-1]}; default: the recipe's.", metavar="NAME_OR_DIR"),
]
TrainingFold = Annotated[
    int | None, typer.Option("--fold", help="0 to 3 on pascal and coco; default: the recipe's.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")]


def read_run(
    kind: "type[Config]",
    recipe: str,
    pairs: list[str] | None,
    *,
    data: str | None,
    fold: int | None,
    device: str,
    resume: bool,
) -> "tuple[Config, RuntimeArgs, frozenset[str]]":
    """Return a training's settings, its runtime arguments, and the names of the settings that were given.

    Raises DataError for a recipe, setting or value that is not allowed, or if accelerate is not installed.
    """
    from kshot.training.recipes import RuntimeArgs, make_config

    if find_spec("accelerate") is None:
        raise DataError("Training needs accelerate: pip install accelerate.")
    settings = read_settings(pairs)
    for name in ("data", "fold", "device", "resume"):
        if name in settings:
            raise DataError(f"--set {name} is an option of its own: give --{name}.")
    known = RuntimeArgs.model_fields.keys() - {"draw_curves"}  # not a text
    ran = {name: settings.pop(name) for name in list(settings) if name in known}
    settings |= {name: value for name, value in (("data", data), ("fold", fold)) if value is not None}
    config = make_config(kind, recipe, settings)
    try:
        runtime = RuntimeArgs(device=device, resume=resume, draw_curves=_curve_drawer(), **ran)
    except ValidationError as error:
        raise DataError(setting_fault(error, RuntimeArgs.model_fields)) from error
    return config, runtime, frozenset(settings)


def lacks_holdout_classes(data: str, fold: int) -> bool:
    """Return whether a folder has too few classes to exclude some from training, and print it if so."""
    from kshot.data.base_classes import MIN_CLASSES, has_holdout_classes

    if has_holdout_classes(data, fold):
        return False
    typer.echo(f"{data} has fewer than {MIN_CLASSES} classes: all are trained on, without holdout classes.")
    return True


def _curve_drawer() -> Any:
    """Return the function that draws a run's curves; None if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return None

    def draw(entries: list[dict[str, Any]], path: Path) -> None:
        from kshot.reproduction.curves import save_curves

        save_curves(entries, path)

    return draw
