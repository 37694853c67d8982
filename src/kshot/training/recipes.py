"""Recipes: complete settings of both trainings, by name; a command's options change single ones."""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from kshot.data.base_classes import NovelPixels, UnknownPixels, train_fold
from kshot.data.folds import NUM_FOLDS
from kshot.models.backbones import TapPlaces
from kshot.models.encoder import CHANNELS
from kshot.models.fusion import FusionKind
from kshot.models.losses import KAPPA

Precision = Literal["auto", "no", "bf16", "fp16"]
"""auto: bf16 where the machine multiplies it fast, else none."""


class PretrainPhase(BaseModel):
    """A part of the base learner's training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(gt=0)
    output_stride: Literal[8, 16] = 8
    """Stride at which the network runs. Its features at every second position are those of the other stride,
    but at 16 there is a quarter of the work in its deeper layers."""
    learns: Literal["all", "head"] = "all"
    """What is trained: all of it, or H_cls alone, on frozen features."""


class PretrainConfig(BaseModel):
    """How a base learner is trained: a PSPNet on a fold's base classes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    data: str = "pascal"
    fold: int = Field(default=0, ge=0, lt=NUM_FOLDS)
    hold_out: bool = False
    """Whether the held-out base classes are kept from it, so that checkpoints can be chosen on them."""
    leave_out: tuple[str, ...] = ()
    """More classes that are kept from it, so that to its features they are what novel classes will be."""
    novel_pixels: NovelPixels = "drop"
    unknown_pixels: UnknownPixels = "ignore"
    crop: int = Field(default=417, ge=33)
    """Side of the training crops in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    degrees: float = 10.0
    blur: float = 0.5
    """How often a photograph is blurred, 0 to 1."""
    class_cap: int | None = None
    """Photographs of a class that an epoch shows at most; None: an epoch is every photograph once."""
    batch: int = Field(default=12, ge=1)
    phases: tuple[PretrainPhase, ...] = (PretrainPhase(epochs=100),)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    backbone_lr: float = 2.5e-4
    head_lr: float = 2.5e-3
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-4
    clip: float | None = None
    """Largest norm of the gradient; None: not clipped."""
    precision: Precision = "no"
    accumulate: int = Field(default=1, ge=1)
    """Parts in which a batch goes through the network, to save memory."""
    start_from_sha256: str | None = None
    """Digest of the base learner that it started from, if it did; filled in by the training."""
    kept_back: int = Field(default=0, ge=0)
    """Training photographs that are kept back, to validate on; 0: the base classes' val lists are used."""
    seed: int = 0


class SizeStage(BaseModel):
    """A stretch of meta-training at one size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(ge=1)
    image_size: int = Field(ge=33)
    """Side in pixels to which images are squashed. EfficientNets want 32 n + 1: see docs/architecture.md."""


class EpisodeMix(BaseModel):
    """How often each kind of episode is drawn: weights, in any unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: float = Field(default=1.0, ge=0)
    """Two images of a class of `data`."""
    extra: float = Field(default=0.0, ge=0)
    """Two images of a class of the extra data sets, each set equally often."""
    regions: float = Field(default=0.0, ge=0)
    """A region of an image, found again in another view of it; see `training.regions`."""
    parts: float = Field(default=0.0, ge=0)
    """A region inside an object, likewise."""
    items: float = Field(default=0.0, ge=0)
    """Small items that repeat; see `training.synthetic`."""
    mosaics: float = Field(default=0.0, ge=0)
    """Textures beside textures."""
    thin: float = Field(default=0.0, ge=0)
    """Thin structures over a texture."""


class TrainConfig(BaseModel):
    """How a meta-learner is trained, on frozen backbones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["hsnet", "two-pass"] = "two-pass"
    backbones: Literal["cls", "sem", "both"] = "cls"
    """Which backbones hsnet matches with."""
    backbone: str
    channels: tuple[int, int, int] = CHANNELS
    """Width of the 4-D encoder."""
    data: str = "pascal"
    fold: int = Field(default=0, ge=0, lt=NUM_FOLDS)
    novel_pixels: NovelPixels = "background"
    unknown_pixels: UnknownPixels = "background"
    class_cap: int | None = None
    """A class is drawn as often as it has images, but as if it had this many at most; None: no limit."""
    center_features: bool = False
    """Whether the mean features of training photographs are taken from all features; not in the paper. Where
    a backbone's features all point one way, cosines tell little apart. A training that starts from a model
    does as that one did."""
    flip: bool = False
    """Whether queries and supports are mirrored, each half of the time."""
    mix: EpisodeMix | None = None
    """Kinds of episodes, whose images are changed, each in its own way, at every use (`training.augment`).
    None: images of classes as they are, with features from the cache (paper)."""
    extra_data: tuple[str, ...] = ()
    """Names of the further data sets that `mix` draws from; filled in by the training."""
    taps: TapPlaces = "blocks"
    first_stride: Literal[8, 16] = 8
    prior: bool = False
    base_stride: Literal[8, 16] = 8
    fusion: FusionKind = "paper"
    """These five are the model's: see `pretrained.ModelConfig`."""
    dice: float = Field(default=0.0, ge=0)
    """Weight of the Dice term in each loss, beside cross-entropy; not in the paper."""
    sizes: tuple[SizeStage, ...]
    """The last one's size is the model's."""
    batch: int = Field(default=24, ge=1)
    """Episodes of a step."""
    lr: float = 1e-3
    """Of Adam."""
    fusion_lr: float | None = None
    """Of the weights of the fusion and of the prior; None: as the others. They start as a simple rule and
    have far to go: in a short training they would not arrive."""
    kappa: float = Field(default=KAPPA, ge=0)
    """Weight of the Shannon term, which polarises the first pass; see `losses`."""
    sharpen_mask: bool | None = None
    """Whether the second pass's soft mask is sharpened (`methods.two_pass.sharpen`); not in the paper. None:
    as in the model that it starts from; without one, it is not."""
    unlearn_own: bool = False
    """While training, H_cls must not suppress the episode's own class. False: its probability is left out of
    the base map's sum. True: its logit is taken away, as though H_cls had never learnt the class. What is
    novel does look like some base class to it; the fusion learns how far the base map can be trusted then."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises from 0."""
    decay: Literal["none", "cosine"] = "none"
    """Whether the learning rate then falls to 0."""
    clip: float | None = None
    """Largest norm of the gradient; None: not clipped."""
    ema: float | None = None
    """Decay of the weights' moving average, which is then what is saved; None: the last weights are."""
    precision: Precision = "no"
    accumulate: int = Field(default=1, ge=1)
    """Parts in which a batch goes through the network, to save memory."""
    select_on: Literal["base", "novel"] | None = "base"
    """Whose episodes the checkpoint is chosen on: held-out base classes, which are then not trained on, or
    the fold's own test, as the field does. None: all base classes are trained on, the last weights kept."""
    base_learner_sha256: str | None = None
    """Digest of the base learner's weights; filled in by the training."""
    other_learners_sha256: tuple[str, ...] = ()
    """Digests of the base learners that read what that one knows; filled in by the training."""
    start_from_sha256: str | None = None
    """Digest of the weights that it started from, if they were not random; filled in by the training."""
    validate_every: int = Field(default=500, ge=1)
    """Steps between validations."""
    validate_episodes: int = Field(default=200, ge=1)
    seed: int = 0

    @property
    def needs_base_learner(self) -> bool:
        """Whether it matches with B_sem."""
        return self.method == "two-pass" or self.backbones != "cls"


class Recipe(NamedTuple):
    """Both trainings' settings."""

    pretrain: PretrainConfig
    train: TrainConfig


def paper_pascal(backbone: str = "resnet50", fold: int = 0) -> Recipe:
    """Give the published settings on PASCAL-5i (Karimi & Poullis 2024, "Implementation details")."""
    pairs = len(train_fold("pascal", fold, hold_out=False).queries)
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
    """Give the published settings on COCO-20i."""
    pairs = len(train_fold("coco", fold, hold_out=False).queries)
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
    """Give settings that two CPU cores train in hours, on PASCAL-5i."""
    return Recipe(
        PretrainConfig(
            backbone=backbone,
            data="pascal",
            fold=fold,
            hold_out=True,
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
            kept_back=100,
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
            unlearn_own=True,
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
    """Give the settings of the `two-pass` that ships: base data of PASCAL-5i alone, on two CPU cores."""
    recipe = lite(backbone, fold)
    pretrain = recipe.pretrain.model_copy(
        update={"hold_out": False, "phases": (PretrainPhase(epochs=10, output_stride=16),)}
    )
    train = recipe.train.model_copy(
        update={
            "mix": EpisodeMix(classes=0.85, regions=0.1, parts=0.05),
            "class_cap": 100,
            "flip": False,  # views are mirrored themselves
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
    """Give the settings of `two-pass-general`: things, parts, textures, small items, thin structures."""
    pretrain, train = lite_two_pass(backbone, fold)
    mix = EpisodeMix(classes=0.34, extra=0.2, regions=0.18, parts=0.06, items=0.09, mosaics=0.06, thin=0.07)
    return Recipe(pretrain, train.model_copy(update={"mix": mix, "dice": 8.0}))
