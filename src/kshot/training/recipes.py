"""Recipes: complete settings of both trainings, by name or from a file."""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kshot.data.base_classes import NovelPixels, UnknownPixels, train_fold
from kshot.data.folds import NUM_FOLDS
from kshot.errors import DataError, reason_of
from kshot.io.name_values import setting_fault, split_commas
from kshot.methods.config import with_new_names as with_new_model_names
from kshot.models.choices import CHANNELS, KAPPA, FusionKind
from kshot.training.watchdog import PATIENCE

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""auto: bf16 if the machine multiplies it fast, else fp32."""

RENAMED = {
    "hold_out": "exclude_holdout",
    "leave_out": "excluded_classes",
    "kept_back": "num_val_images",
    "unlearn_own": "mask_class_logit",
}
"""Settings by their names in older files, in addition to those of models."""


def with_new_names(settings: Any) -> Any:
    """Return settings read from a file under their present names."""
    settings = with_new_model_names(settings)
    if not isinstance(settings, dict):
        return settings
    settings = {RENAMED.get(name, name): value for name, value in settings.items()}
    if settings.get("precision") == "no":
        settings["precision"] = "fp32"
    return settings


class RuntimeArgs(BaseModel):
    """Arguments of a run that are not part of its recipe: they differ between machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = "auto"
    """auto, cpu, or cuda; auto is a GPU if there is one."""
    resume: bool = False
    workers: int = Field(default=0, ge=0)
    """Processes that load data in parallel. They do not change the result."""
    cache: Path = Path("runs/features")
    """Folder for frozen features, which runs can share."""
    cache_gb: float = Field(default=20.0, ge=0)
    """Largest size of the cache in GiB. Features beyond it are computed at every use."""
    dev_root: Path | None = None
    """Folder of the images for validation; None: validate on the dataset's own."""
    checkpoint_seconds: float = Field(default=300.0, ge=0)
    """Time between checkpoints."""
    tensorboard: bool = False
    """Write TensorBoard's event files too."""
    patience: float = Field(default=PATIENCE, gt=0)
    """Seconds without a step after which one of several processes ends, since another one must have died."""
    draw_curves: Callable[[list[dict[str, Any]], Path], None] | None = None
    """Draws a run's log into its folder; None draws nothing."""


class PretrainPhase(BaseModel):
    """One part of the base learner's training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(gt=0)
    output_stride: Literal[8, 16] = 8
    """Stride at which the network runs. Stride 16 computes every second position of stride 8, with a quarter
    of the work in the deeper layers."""
    learns: Literal["all", "head"] = "all"
    """What is trained: the whole network, or H_cls alone on frozen features."""


class PretrainConfig(BaseModel):
    """Settings of a base learner's training: a PSPNet on a fold's base classes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _with_new_names = model_validator(mode="before")(with_new_names)

    backbone: str
    data: str = "pascal"
    fold: int = Field(default=0, ge=0, lt=NUM_FOLDS)
    exclude_holdout: bool = False
    """Exclude the fold's holdout classes, so that checkpoints can be chosen on them."""
    excluded_classes: tuple[str, ...] = ()
    """Further classes to exclude, also as text: "bus,car". The features then treat them as they will treat
    novel classes."""
    novel_pixels: NovelPixels = "drop"
    unknown_pixels: UnknownPixels = "ignore"
    crop: int = Field(default=417, ge=33)
    """Side of the training crops in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    degrees: float = 10.0
    blur: float = 0.5
    """Share of the crops that are blurred, 0 to 1."""
    class_cap: int | None = None
    """Largest number of images of a class in an epoch; None: an epoch is every image once."""
    batch: int = Field(default=12, ge=1)
    phases: tuple[PretrainPhase, ...] = (PretrainPhase(epochs=100),)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    backbone_lr: float = 2.5e-4
    head_lr: float = 2.5e-3
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    clip: float | None = None
    """Largest norm of the gradient; None: no clipping."""
    precision: Precision = "fp32"
    accumulate: int = Field(default=1, ge=1)
    """Number of parts in which a batch passes through the network, to save memory."""
    start_from_sha256: str | None = None
    """Digest of the base learner that the training started from; filled in by the training."""
    num_val_images: int = Field(default=0, ge=0)
    """Number of training images used for validation; 0: validate on the base classes' val lists."""
    seed: int = 0

    _split_classes = field_validator("excluded_classes", mode="before")(split_commas)


class SizeStage(BaseModel):
    """Part of the meta-training at one image size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1)
    image_size: int = Field(ge=33)
    """Side in pixels to which images are squashed. EfficientNets need 32 n + 1: see docs/architecture.md."""


class EpisodeMix(BaseModel):
    """Weights of the kinds of episodes, in any unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: float = Field(default=1.0, ge=0)
    """Two images of a class of `data`."""
    extra: float = Field(default=0.0, ge=0)
    """Two images of a class of the extra data sets; each set is drawn equally often."""
    regions: float = Field(default=0.0, ge=0)
    """A region of an image in two views of it; see `training.regions`."""
    parts: float = Field(default=0.0, ge=0)
    """A region inside an object in two views."""
    items: float = Field(default=0.0, ge=0)
    """Small items that repeat; see `training.synthetic`."""
    mosaics: float = Field(default=0.0, ge=0)
    """Textures beside textures."""
    thin: float = Field(default=0.0, ge=0)
    """Thin structures over a texture."""


class TrainConfig(BaseModel):
    """Settings of a meta-learner's training, on frozen backbones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _with_new_names = model_validator(mode="before")(with_new_names)

    method: Literal["hsnet", "two-pass"] = "two-pass"
    backbones: Literal["cls", "sem", "both"] = "cls"
    """Backbones whose features hsnet correlates."""
    backbone: str
    channels: tuple[int, int, int] = CHANNELS
    """Width of the 4-D encoder."""
    data: str = "pascal"
    fold: int = Field(default=0, ge=0, lt=NUM_FOLDS)
    novel_pixels: NovelPixels = "background"
    unknown_pixels: UnknownPixels = "background"
    class_cap: int | None = None
    """A class is drawn in proportion to its number of images, up to this number; None: no limit."""
    center_features: bool = False
    """Subtract the mean features of training images from all features; not in the paper. If all features of
    a backbone point one way, their cosines differ little. A training that starts from a model uses the
    model's setting."""
    flip: bool = False
    """Mirror queries and supports, each with probability 0.5."""
    mix: EpisodeMix | None = None
    """Kinds of episodes, whose images are augmented at every use (`training.augment`). None: unchanged
    images of classes, with features from the cache (paper)."""
    extra_data: tuple[str, ...] = ()
    """Names of the extra data sets that `mix` draws from; filled in by the training."""
    first_stride: Literal[8, 16] = 8
    prior: bool = False
    base_stride: Literal[8, 16] = 8
    fusion: FusionKind = "paper"
    """These four are settings of the model: see `methods.config.ModelConfig`."""
    dice: float = Field(default=0.0, ge=0)
    """Weight of the Dice term in each loss, beside cross-entropy; not in the paper."""
    sizes: tuple[SizeStage, ...] = Field(min_length=1)
    """Stages of the training, also as text: "1500@257,300@401" is 1500 steps at 257 px, then 300 at 401. The
    last stage's size becomes the model's."""
    batch: int = Field(default=24, ge=1)
    """Episodes per step."""
    lr: float = 1e-3
    """Learning rate of Adam."""
    fusion_lr: float | None = None
    """Learning rate of the fusion and the prior; None: the same as `lr`. They start as a simple rule and need
    large changes, which a short training at `lr` would not reach."""
    kappa: float = Field(default=KAPPA, ge=0)
    """Weight of the Shannon term, which polarises the first pass; see `losses`."""
    sharpen_mask: bool | None = None
    """Sharpen the second pass's soft mask (`methods.two_pass.sharpen`); not in the paper. None: the setting
    of the model that the training starts from, else no."""
    adapt: bool = False
    """Save the network as part of the method `adaptive`, which adapts to each support set."""
    mask_class_logit: bool = False
    """How training hides the episode's class from the base map, which would suppress it. False: leave its
    probability out of the base map's sum. True: mask its logit, as if H_cls had not learned the class. H_cls
    then takes the object for some other base class, as it does with novel classes, and the fusion learns how
    far to trust the base map."""
    warmup: int = Field(default=0, ge=0)
    """Number of steps over which the learning rate rises from 0."""
    decay: Literal["none", "cosine"] = "none"
    """Course of the learning rate after the warm-up: constant, or a cosine down to 0."""
    clip: float | None = None
    """Largest norm of the gradient; None: no clipping."""
    ema: float | None = None
    """Decay of the weights' moving average, which is then saved; None: save the last weights."""
    precision: Precision = "fp32"
    accumulate: int = Field(default=1, ge=1)
    """Number of parts in which a batch passes through the network, to save memory."""
    select_on: Literal["base", "novel"] | None = "base"
    """Episodes on which the checkpoint is chosen: of the holdout classes, which are then excluded from the
    training, or of the fold's test, as the field does. None: train on all base classes, keep the last
    weights."""
    base_learner_sha256: str | None = None
    """Digest of the base learner's weights; filled in by the training."""
    other_learners_sha256: tuple[str, ...] = ()
    """Digests of the other base learners, for classes that the first was trained on; filled in by the
    training."""
    start_from_sha256: str | None = None
    """Digest of the weights that the training started from; filled in by the training."""
    validate_every: int = Field(default=500, ge=1)
    """Steps between validations."""
    validate_episodes: int = Field(default=200, ge=1)
    seed: int = 0

    @field_validator("sizes", mode="before")
    @classmethod
    def _read_sizes(cls, value: Any) -> Any:
        if not isinstance(value, (str, int)):
            return value
        stages = []
        for part in split_commas(str(value)):
            steps, _, size = part.partition("@")
            if not (steps.isdigit() and size.isdigit()):
                raise ValueError(f"'{part}' is not a number of steps and an image size, such as 1500@257")
            stages.append({"steps": int(steps), "image_size": int(size)})
        return stages

    @property
    def needs_base_learner(self) -> bool:
        """Whether the method uses B_sem."""
        return self.method == "two-pass" or self.backbones != "cls"


class Recipe(NamedTuple):
    """Both trainings' settings."""

    pretrain: PretrainConfig
    train: TrainConfig


def paper_pascal(backbone: str = "resnet50", fold: int = 0) -> Recipe:
    """Return the published settings on PASCAL-5i (Karimi & Poullis 2024, "Implementation details")."""
    pairs = len(train_fold("pascal", fold, exclude_holdout=False).queries)
    return Recipe(
        PretrainConfig(backbone=backbone, data="pascal", fold=fold),
        TrainConfig(
            backbone=backbone,
            data="pascal",
            fold=fold,
            sizes=(SizeStage(steps=200 * pairs // 24, image_size=400),),
            batch=24,
            select_on="novel",
            validate_every=pairs // 24,
            validate_episodes=1000,
        ),
    )


def paper_coco(backbone: str = "resnet50", fold: int = 0) -> Recipe:
    """Return the published settings on COCO-20i."""
    pairs = len(train_fold("coco", fold, exclude_holdout=False).queries)
    return Recipe(
        PretrainConfig(
            backbone=backbone,
            data="coco",
            fold=fold,
            phases=(PretrainPhase(epochs=20),),
            backbone_lr=2.5e-3,
        ),
        TrainConfig(
            backbone=backbone,
            data="coco",
            fold=fold,
            sizes=(SizeStage(steps=200 * pairs // 48, image_size=400),),
            batch=48,
            select_on="novel",
            validate_every=pairs // 48,
            validate_episodes=1000,
        ),
    )


def lite(backbone: str = "efficientnet_lite2", fold: int = 0) -> Recipe:
    """Return settings that two CPU cores train in hours, on PASCAL-5i."""
    return Recipe(
        PretrainConfig(
            backbone=backbone,
            data="pascal",
            fold=fold,
            exclude_holdout=True,
            novel_pixels="ignore",
            crop=257,
            class_cap=200,
            batch=16,
            phases=(
                PretrainPhase(epochs=10, output_stride=16),
                PretrainPhase(epochs=1, output_stride=8, learns="head"),
            ),
            optimiser="adamw",
            backbone_lr=2e-4,
            head_lr=1e-3,
            weight_decay=1e-2,
            clip=5.0,
            precision="auto",
            num_val_images=100,
        ),
        TrainConfig(
            backbone=backbone,
            channels=(16, 32, 64),
            data="pascal",
            fold=fold,
            novel_pixels="ignore",
            unknown_pixels="ignore",
            class_cap=60,
            center_features=True,
            flip=True,
            fusion_lr=2e-2,
            mask_class_logit=True,
            sizes=(SizeStage(steps=1000, image_size=257),),
            batch=8,
            warmup=50,
            decay="cosine",
            clip=5.0,
            ema=0.995,
            precision="auto",
            select_on="base",
        ),
    )


def lite_two_pass(backbone: str = "efficientnet_lite2", fold: int = 0) -> Recipe:
    """Return settings for two CPU cores that use base data of PASCAL-5i alone."""
    recipe = lite(backbone, fold)
    pretrain = recipe.pretrain.model_copy(
        update={"exclude_holdout": False, "phases": (PretrainPhase(epochs=10, output_stride=16),)}
    )
    train = recipe.train.model_copy(
        update={
            "mix": EpisodeMix(classes=0.85, regions=0.1, parts=0.05),
            "class_cap": 100,
            "flip": False,  # views are mirrored already
            "prior": True,
            "base_stride": 16,
            "fusion": "both-passes",
            "dice": 2.0,
            "sharpen_mask": True,
            "sizes": (SizeStage(steps=1600, image_size=257), SizeStage(steps=400, image_size=321)),
            "lr": 5e-4,
            "fusion_lr": 5e-3,
            "select_on": None,
        }
    )
    return Recipe(pretrain, train)


def lite_general(backbone: str = "efficientnet_lite2", fold: int = 0) -> Recipe:
    """Return the settings of `two-pass-general`: things, parts, textures, small items, thin structures."""
    pretrain, train = lite_two_pass(backbone, fold)
    mix = EpisodeMix(classes=0.34, extra=0.2, regions=0.18, parts=0.06, items=0.09, mosaics=0.06, thin=0.07)
    return Recipe(pretrain, train.model_copy(update={"mix": mix, "dice": 8.0, "adapt": True}))


RECIPES: Mapping[str, Callable[..., Recipe]] = {
    "lite": lite,
    "lite-two-pass": lite_two_pass,
    "lite-general": lite_general,
    "paper-pascal": paper_pascal,
    "paper-coco": paper_coco,
}

Config = TypeVar("Config", PretrainConfig, TrainConfig)


def make_config(kind: type[Config], recipe: str, settings: Mapping[str, Any]) -> Config:
    """Return the settings of a training: those of a recipe, with changes.

    kind: PretrainConfig or TrainConfig. recipe: a name of RECIPES, or a TOML or JSON file with a training's
    settings, such as the recipe.json that a run writes. A file can start from a named recipe
    (`recipe = "lite"`) and list changes only. settings: changes by name; "mix.parts" is a setting inside
    another one, "sizes.0.steps" one of the first entry.
    Raises DataError for an unknown recipe or setting, or a value that is not allowed.
    """
    content: dict[str, Any] = {}
    name: str | None = recipe
    if recipe not in RECIPES:
        content = with_new_names(_read_file(Path(recipe)))
        name = content.pop("recipe", None)
        if name is not None and name not in RECIPES:
            raise DataError(f"{recipe} starts from recipe '{name}'. Use one of {', '.join(RECIPES)}.")
    try:
        base = {} if name is None else _of_recipe(kind, name, {**content, **settings})
        values = base | content
        for key, value in settings.items():
            _set(values, key, value)
        return kind.model_validate(values)
    except ValidationError as error:
        raise DataError(setting_fault(error, kind.model_fields)) from error


def _of_recipe(kind: type[Config], name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    found = RECIPES[name](fold=_fold(settings))
    return (found.pretrain if kind is PretrainConfig else found.train).model_dump()


def _fold(settings: Mapping[str, Any]) -> int:
    """Return the fold, which some recipes' number of steps depends on; 0 for one that is not allowed."""
    fold = settings.get("fold", 0)
    return fold if fold in range(NUM_FOLDS) else 0


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"There is no recipe or file '{path}'. Recipes: {', '.join(RECIPES)}.")
    try:
        read: Callable[[str], Any] = json.loads if path.suffix == ".json" else tomllib.loads
        content = read(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"Recipe {path} is not a TOML or JSON file: {reason_of(error)}.") from error
    if not isinstance(content, dict):
        raise DataError(f"Recipe {path} holds no settings.")
    return content


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value; a dotted key leads into nested settings, a number into a list."""
    name, _, rest = key.partition(".")
    if not rest:
        values[name] = value
        return
    inner = values.get(name)
    if isinstance(inner, (list, tuple)) and all(isinstance(item, dict) for item in inner):
        inner = {str(index): item for index, item in enumerate(inner)}
        if rest.partition(".")[0] not in inner:
            raise DataError(f"Setting {key}: {name} has {len(inner)} entries, counted from 0.")
        _set(inner, rest, value)
        values[name] = list(inner.values())
        return
    if not isinstance(inner, dict):
        raise DataError(f"Setting {key}: {name} is {inner!r}, which has no settings of its own.")
    values[name] = dict(inner)
    _set(values[name], rest, value)
