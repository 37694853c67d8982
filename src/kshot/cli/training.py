"""The verbs of training, one function each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from kshot.errors import DataError, fault_of

if TYPE_CHECKING:
    from kshot.data.folder import Folder
    from kshot.training.recipes import Recipe
    from kshot.training.run_folder import DrawCurves

RecipeName = Annotated[
    Literal["paper-pascal", "paper-coco", "lite", "lite-two-pass", "lite-general"],
    typer.Option("--recipe", help="Settings to start from; the other options change single ones."),
]
Data = Annotated[
    str | None, typer.Option(help="pascal, coco, fss1000, or a folder of your own.", metavar="NAME")
]
Root = Annotated[Path | None, typer.Option(help="Where the benchmark's files are.", metavar="DIR")]
Out = Annotated[Path, typer.Option(help="Folder of the run.", metavar="DIR")]
Fold = Annotated[int, typer.Option(help="0 to 3 on pascal and coco.")]
BackboneName = Annotated[str | None, typer.Option(help="Default the recipe's.")]
BackboneWeights = Annotated[Path | None, typer.Option(help="File with its ImageNet weights.", metavar="FILE")]
NovelPixels = Annotated[
    Literal["background", "drop", "ignore"] | None,
    typer.Option(help="What becomes of novel objects in training photographs; default the recipe's."),
]
UnknownPixels = Annotated[
    Literal["background", "ignore"] | None,
    typer.Option(help="What becomes of pixels without a label (255); default the recipe's."),
]
BatchSize = Annotated[int | None, typer.Option("--batch", help="Of a step, over all processes.", min=1)]
Accumulate = Annotated[int | None, typer.Option(help="Parts of a batch, to save memory.", min=1)]
PrecisionName = Annotated[
    Literal["auto", "no", "bf16", "fp16"] | None,
    typer.Option("--precision", help="Of the matrix products; auto: bf16 where the machine is fast at it."),
]
Seed = Annotated[int | None, typer.Option(min=0)]
Workers = Annotated[int, typer.Option(help="Processes that read ahead; they change no result.", min=0)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on at the last checkpoint of --out.")]
Device = Annotated[Literal["auto", "cpu"], typer.Option(help="auto: a GPU, if there is one.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard's event files.")]
CheckpointSeconds = Annotated[float, typer.Option(help="Seconds between checkpoints.", min=0)]


def pretrain(
    context: typer.Context,
    out: Out,
    root: Root = None,
    recipe: RecipeName = "lite",
    data: Data = None,
    fold: Fold = 0,
    backbone: BackboneName = None,
    exclude_holdout: Annotated[
        bool | None,
        typer.Option(
            "--exclude-holdout/--no-exclude-holdout",
            help="Do not train on the fold's holdout classes, so that checkpoints can be chosen on them; "
            "default: the recipe's.",
        ),
    ] = None,
    excluded_classes: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude-class",
            metavar="CLASS",
            help="Do not train on this class either (repeatable). `kshot train` can then encode its episodes "
            "with this base learner.",
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Base learner to train on from, instead of ImageNet's weights; it may know other classes.",
            metavar="DIR_OR_MODEL",
        ),
    ] = None,
    epochs: Annotated[
        list[float] | None, typer.Option(help="Of the recipe's phases; repeat for each of them.")
    ] = None,
    crop: Annotated[int | None, typer.Option(help="Side of the crops in pixels.", min=33)] = None,
    novel_pixels: NovelPixels = None,
    unknown_pixels: UnknownPixels = None,
    batch: BatchSize = None,
    accumulate: Accumulate = None,
    backbone_lr: Annotated[float | None, typer.Option(help="Learning rate of the backbone.")] = None,
    head_lr: Annotated[float | None, typer.Option(help="Learning rate of the head.")] = None,
    num_val_images: Annotated[
        int | None,
        typer.Option(
            help="Number of training images used for validation; 0: the base classes' val lists.", min=0
        ),
    ] = None,
    precision: PrecisionName = None,
    seed: Seed = None,
    backbone_weights: BackboneWeights = None,
    workers: Workers = 0,
    resume: Resume = False,
    device: Device = "auto",
    tensorboard: TensorBoard = False,
    checkpoint_seconds: CheckpointSeconds = 300.0,
) -> None:
    """Train a base learner: a PSPNet on a fold's base classes (B_sem and H_cls of two-pass)."""
    config = _recipe(recipe, backbone, fold).pretrain
    changes: dict[str, Any] = {
        "data": data,
        "exclude_holdout": exclude_holdout,
        "excluded_classes": excluded_classes,
        "crop": crop,
        "novel_pixels": novel_pixels,
        "unknown_pixels": unknown_pixels,
        "batch": batch,
        "accumulate": accumulate,
        "backbone_lr": backbone_lr,
        "head_lr": head_lr,
        "num_val_images": num_val_images,
        "precision": precision,
        "seed": seed,
    }
    if epochs:
        if len(epochs) != len(config.phases):
            raise DataError(
                f"The recipe has {len(config.phases)} phases, but --epochs was given {len(epochs)} times."
            )
        changes["phases"] = [
            phase.model_copy(update={"epochs": e}) for phase, e in zip(config.phases, epochs, strict=True)
        ]
    config = _changed(config, changes)
    if config.exclude_holdout and exclude_holdout is None and _holds_nothing_out(config.data, fold):
        config = config.model_copy(update={"exclude_holdout": False})

    from kshot.data.benchmarks import open_dataset
    from kshot.training.pretrain import pretrain as run
    from kshot.training.trainer import RuntimeArgs, leave_processes

    run(
        config,
        open_dataset(config.data, root),
        out,
        RuntimeArgs(device, resume, tensorboard, checkpoint_seconds, draw_curves=_draw_curves()),
        start_from=start_from,
        backbone_weights=backbone_weights,
        workers=workers,
        arguments=tuple(context.obj),
    )
    leave_processes()
    typer.echo(f"The base learner is in {out}.")


def train(
    context: typer.Context,
    out: Out,
    root: Root = None,
    recipe: RecipeName = "lite",
    data: Data = None,
    fold: Fold = 0,
    method: Annotated[Literal["hsnet", "two-pass"] | None, typer.Option(help="Default two-pass.")] = None,
    backbones: Annotated[
        Literal["cls", "sem", "both"] | None, typer.Option(help="Which backbones hsnet matches with.")
    ] = None,
    base_learner: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of a base learner, from `kshot pretrain`, or a model that has one; default that of "
            "--start-from. More of them read the episodes whose class the ones before know.",
            metavar="DIR_OR_MODEL",
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="Model to train on from, instead of random weights: two-pass, which ships, or a folder.",
            metavar="DIR_OR_MODEL",
        ),
    ] = None,
    backbone: BackboneName = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="Steps and image size, as 1500@257; repeat to go on at another size.", metavar="N@PX"
        ),
    ] = None,
    novel_pixels: NovelPixels = None,
    unknown_pixels: UnknownPixels = None,
    extra_data: Annotated[
        list[str] | None,
        typer.Option(
            help="Another data set to draw episodes from: a folder of images/ and masks/, or "
            "coco-mini-60=DIR. Repeatable; for recipes that mix kinds of episodes.",
            metavar="DIR",
        ),
    ] = None,
    dev_root: Annotated[
        Path | None,
        typer.Option(help="Where the images of validation lie, if not in --root.", metavar="DIR"),
    ] = None,
    batch: BatchSize = None,
    accumulate: Accumulate = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.")] = None,
    fusion_lr: Annotated[
        float | None, typer.Option(help="Learning rate of the fusion and of the prior.")
    ] = None,
    kappa: Annotated[
        float | None, typer.Option(help="Weight of the Shannon term, which polarises the first pass.", min=0)
    ] = None,
    sharpen_mask: Annotated[
        bool | None,
        typer.Option(
            "--sharpen-mask/--no-sharpen-mask",
            help="Sharpen the mask under which the query is its own support, or take the first pass's "
            "probabilities as they are, as the paper does.",
        ),
    ] = None,
    mask_class_logit: Annotated[
        bool | None,
        typer.Option(
            "--mask-class-logit/--drop-class-probability",
            help="Hide an episode's class from the base map: mask its logit in H_cls, or drop its "
            "probability from the sum.",
        ),
    ] = None,
    center_features: Annotated[
        bool | None,
        typer.Option(
            "--center-features/--no-center-features",
            help="Take training photographs' mean features from all features, or match them as they are.",
        ),
    ] = None,
    select_on: Annotated[
        Literal["base", "novel", "nothing"] | None,
        typer.Option(
            help="Episodes to choose the checkpoint on: of held-out base classes, which are then not trained "
            "on; of the fold's novel ones (the field's habit); of none: the last weights are kept."
        ),
    ] = None,
    validate_every: Annotated[int | None, typer.Option(help="Steps between validations.", min=1)] = None,
    validate_episodes: Annotated[int | None, typer.Option(help="Episodes of a validation.", min=1)] = None,
    precision: PrecisionName = None,
    seed: Seed = None,
    cache: Annotated[
        Path, typer.Option(help="Folder for frozen features; runs can share one.", metavar="DIR")
    ] = Path("runs/features"),
    cache_gb: Annotated[
        float, typer.Option("--cache-gb", help="Its largest size, in GiB; the rest is computed anew.", min=0)
    ] = 20.0,
    backbone_weights: BackboneWeights = None,
    workers: Workers = 0,
    resume: Resume = False,
    device: Device = "auto",
    tensorboard: TensorBoard = False,
    checkpoint_seconds: CheckpointSeconds = 300.0,
) -> None:
    """Train a meta-learner, hsnet or two-pass, on a fold's base classes, with frozen backbones."""
    config = _recipe(recipe, backbone, fold).train
    changes: dict[str, Any] = {
        "data": data,
        "method": method,
        "backbones": backbones,
        "novel_pixels": novel_pixels,
        "unknown_pixels": unknown_pixels,
        "batch": batch,
        "accumulate": accumulate,
        "lr": lr,
        "fusion_lr": fusion_lr,
        "kappa": kappa,
        "sharpen_mask": sharpen_mask,
        "mask_class_logit": mask_class_logit,
        "center_features": center_features,
        "validate_every": validate_every,
        "validate_episodes": validate_episodes,
        "precision": precision,
        "seed": seed,
    }
    if stage:
        changes["sizes"] = [_stage(text) for text in stage]
    config = _changed(config, changes)
    if select_on is not None:
        config = config.model_copy(update={"select_on": None if select_on == "nothing" else select_on})
    elif config.select_on == "base" and _holds_nothing_out(config.data, fold):
        config = config.model_copy(update={"select_on": None})

    from kshot.data.benchmarks import open_dataset
    from kshot.training.meta_train import train as run
    from kshot.training.trainer import RuntimeArgs, leave_processes

    extra = dict(extra_data_set(text) for text in extra_data or ())
    if extra and config.mix is None:
        raise DataError("--extra-data is for recipes that mix kinds of episodes: --recipe lite-general.")

    typer.echo(f"Training into {out}. It can take minutes until the first line of progress.")
    run(
        config,
        open_dataset(config.data, root),
        out,
        RuntimeArgs(device, resume, tensorboard, checkpoint_seconds, draw_curves=_draw_curves()),
        cache=cache,
        cache_gb=cache_gb,
        workers=workers,
        base_learners=base_learner or (),
        extra=extra,
        validate_on=None if dev_root is None else open_dataset(config.data, dev_root),
        start_from=start_from,
        backbone_weights=backbone_weights,
        arguments=tuple(context.obj),
    )
    leave_processes()
    typer.echo(f"The model is in {out}: kshot segment --model {out} …")


def _draw_curves() -> "DrawCurves | None":
    """Return what draws the curves of a run; None without matplotlib, which training does not need."""
    if find_spec("matplotlib") is None:
        return None
    from kshot.reproduction.curves import save_curves

    return save_curves


def _recipe(name: str, backbone: str | None, fold: int) -> "Recipe":
    if find_spec("accelerate") is None:
        raise DataError("Training needs accelerate: pip install accelerate.")
    from kshot.training.recipes import lite, lite_general, lite_two_pass, paper_coco, paper_pascal

    recipe: Callable[..., Recipe] = {
        "paper-pascal": paper_pascal,
        "paper-coco": paper_coco,
        "lite": lite,
        "lite-two-pass": lite_two_pass,
        "lite-general": lite_general,
    }[name]
    with _named_faults():
        return recipe(fold=fold) if backbone is None else recipe(backbone, fold=fold)


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    """Change single settings, and check the whole again."""
    given = {key: value for key, value in changes.items() if value is not None}
    with _named_faults():
        return type(config).model_validate(dict(config) | given)


@contextmanager
def _named_faults() -> Iterator[None]:
    """Say of a setting that is out of range which one it is."""
    try:
        yield
    except ValidationError as error:
        raise DataError(f"A setting cannot be used: {fault_of(error)}.") from error


def _holds_nothing_out(data: str, fold: int) -> bool:
    """Find out whether a folder of one's own has too few classes to keep some from training, and say so."""
    from kshot.data.base_classes import MIN_CLASSES, has_holdout_classes

    if has_holdout_classes(data, fold):
        return False
    typer.echo(f"{data} shows fewer than {MIN_CLASSES} classes: all are trained on, and none is held out.")
    return True


def extra_data_set(text: str) -> "tuple[str, Folder]":
    """Open a further data set to train on: a folder, or coco-mini-60=DIR; give its name too."""
    from kshot.data.folder import COCO_MINI, Folder
    from kshot.data.folds import COCO_CLASSES

    name, _, place = text.rpartition("=")
    root = Path(place)
    if name not in ("", COCO_MINI):
        raise DataError(f"--extra-data is '{text}'; give a folder, or {COCO_MINI}=DIR.")
    return name or root.name, Folder(root, COCO_CLASSES if name else ())


def _stage(text: str) -> dict[str, int]:
    steps, at, size = text.partition("@")
    if not (at and steps.isdigit() and size.isdigit()):
        raise DataError(f"--stage is '{text}'; give steps and image size in pixels, as 1500@257.")
    return {"steps": int(steps), "image_size": int(size)}


def add_to(app: typer.Typer) -> None:
    """Give a command these verbs."""
    for verb in (pretrain, train):
        app.command()(verb)
