"""Train a meta-learner: hsnet or two-pass on a fold's base classes, with both backbones frozen."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam

from kshot.data.base import Dataset
from kshot.data.base_classes import train_fold
from kshot.data.benchmarks import benchmark_of
from kshot.data.folder import Folder
from kshot.errors import ModelError
from kshot.evaluation.selection import check_held_out
from kshot.io.provenance import record_provenance
from kshot.methods.config import ModelConfig
from kshot.methods.hsnet import HSNet
from kshot.methods.hub import (
    CONFIG_FILE,
    base_learner_names,
    build_method,
    folder_sha256,
    imagenet_backbone,
    read_config,
    save_model,
)
from kshot.methods.two_pass import TwoPass
from kshot.models.backbones import FeaturePyramid, timm_name
from kshot.models.base_learner import PSPNet
from kshot.models.hypercorrelation import tap_means
from kshot.models.losses import losses
from kshot.training.base_learner_files import BaseLearnerConfig, find_base_learner, forget, load_base_learner
from kshot.training.cards import model_card
from kshot.training.episodes import Batch, FeatureReader, TrainingEpisodes
from kshot.training.feature_cache import Budget
from kshot.training.recipes import TrainConfig
from kshot.training.start_from import FROZEN, fill_from, find_start
from kshot.training.trainer import Machine, Phase, Training, fit, set_up
from kshot.training.validation import Validation
from kshot.training.view_episodes import ViewEpisodes

FAST = ("method.fusion.", "method.prior.", "method.matcher.prior.")
"""Parts that begin as no more than a rule, and have far to go."""

CENTRED_ON = 200
"""Photographs at most whose mean features are measured."""

LOOK = 20
"""Episodes that are scored before the first step, so that a broken run shows at once."""


def train(
    config: TrainConfig,
    dataset: Dataset,
    out: Path,
    machine: Machine,
    *,
    cache: Path,
    cache_gb: float,
    workers: int = 0,
    base_learners: Sequence[str | Path] = (),
    extra: Mapping[str, Folder] | None = None,
    validate_on: Dataset | None = None,
    start_from: str | Path | None = None,
    backbone_weights: Path | None = None,
    arguments: tuple[str, ...] = (),
) -> None:
    """Train a meta-learner, and write it to the run's folder `out`, ready for `Segmenter.from_pretrained`.

    base_learners: a base learner's folder, or a model that has one, for two-pass, and hsnet that matches by
    "sem" or "both"; without it that of start_from. More of them read the episodes whose class it knows, see
    `TrainingEpisodes`.
    extra: further data sets by name, for a config with a `mix`. workers: processes that draw such episodes
    ahead. validate_on: the images that validation episodes are drawn from, if not those of `dataset`.
    start_from: a model, as `load_model` takes it, whose meta-learner is trained on, not random weights; an
    hsnet also as the first part of a two-pass.
    """
    # Set up.
    begun, provenance = time.monotonic(), record_provenance(arguments)
    folder = None if start_from is None else find_start(config, start_from)
    if not base_learners and config.needs_base_learner and start_from is not None:
        base_learners = [start_from]
    learner_folders = [find_base_learner(one) for one in base_learners]
    digests = [folder_sha256(one) for one in learner_folders]
    known: dict[str, Any] = {
        "base_learner_sha256": digests[0] if digests else None,
        "other_learners_sha256": tuple(digests[1:]),
        "start_from_sha256": None if folder is None else folder_sha256(folder),
    }
    if folder is not None:
        start = read_config(folder / CONFIG_FILE)
        known["center_features"] = start.center_features
        if config.sharpen_mask is None:
            known["sharpen_mask"] = start.sharpen_mask
    if config.mix is not None:
        known["extra_data"] = tuple(extra or ())
        if len(learner_folders) > 1:
            raise ModelError("A training with a mix of episodes takes one base learner. Give one.")
    config = config.model_copy(update=known)
    accelerator, run, checkpoint = set_up(config, out, machine)

    # Build.
    torch.manual_seed(config.seed)
    learners = [read_base_learner(config, one) for one in learner_folders]
    model, method = build(config, learners[0] if learners else None, backbone_weights)
    if folder is not None:
        fill_from(folder, config, method, backbone_weights)
    method.to(accelerator.device)
    matcher = method.matcher
    networks = [learner.network.to(accelerator.device) for learner in learners]
    budget = Budget(cache, int(cache_gb * 2**30))

    def reader_of(files: Dataset, size: int) -> FeatureReader:
        return FeatureReader(files, matcher, networks, size, budget, accelerator.device)

    readers = {stage.image_size: reader_of(dataset, stage.image_size) for stage in config.sizes}
    episodes: TrainingEpisodes | ViewEpisodes
    if config.mix is None:
        episodes = TrainingEpisodes(config, dataset, [learner.about.base_classes for learner in learners])
    else:
        known_classes = learners[0].about.base_classes if learners else ()
        episodes = ViewEpisodes(config, dataset, extra or {}, known_classes)
    if checkpoint is None:
        centre(matcher, readers[model.image_size], episodes.photographs)
    if matcher.sem_means is not None:
        centre_others(readers, model.image_size, episodes.photographs)
    files = dataset if validate_on is None else validate_on
    validation = Validation(config, files, reader_of(files, model.image_size), accelerator)
    if checkpoint is not None:
        run.forget_after(checkpoint.phase, checkpoint.step)
    elif accelerator.is_main_process:
        run.begin()
        scores = validation.score(method, limit=LOOK) | validation.prototype(method)
        run.log({"phase": 0, "step": 0, "validation": scores})

    # Fit.
    steps = sum(stage.steps for stage in config.sizes)
    learner = Matching(method, config.kappa, config.dice)
    training = Training(
        learner,
        Adam(groups(learner, config), fused=True),
        Phase(
            0,
            steps,
            rate(config, steps),
            config.seed,
            machine,
            clip=config.clip,
            ema=config.ema,
            validate_every=config.validate_every,
            shows=lambda step: episodes.names(range(step * config.batch, (step + 1) * config.batch)),
        ),
        accelerator,
        frozen=FROZEN,
        checkpoint=checkpoint,
    )

    def batches(first: int) -> Iterator[list[Batch]]:
        rank, world = accelerator.process_index, accelerator.num_processes
        for size, of_size in groupby(range(first, steps), key=lambda step: size_at(config, step)):
            mine = (range(s * config.batch + rank, (s + 1) * config.batch, world) for s in of_size)
            parts = [part for share in mine for part in _split(share, config.accumulate)]
            read: Iterator[Batch]
            if isinstance(episodes, TrainingEpisodes):
                read = map(partial(episodes.read, reader=readers[size]), parts)
            else:
                read = episodes.batches(parts, size, method, workers)
            yield from in_groups(read, config.accumulate)

    def validate(learner: Matching) -> dict[str, float]:
        scores = validation.score(learner.method)
        if config.select_on is None or scores["miou"] > max(run.validations("miou"), default=-1.0):
            save_model(model, learner.method, run.path, half=True)
        return scores

    fit(training, batches, run, validate)

    # Sum up.
    if accelerator.is_main_process:
        found = run.validations("miou")
        scores = {"miou": found[-1] if config.select_on is None else max(found)}
        provenance = provenance.with_duration(time.monotonic() - begun)
        run.finish({"validation": scores}, model_card(model, config, scores, provenance), provenance)


class BaseLearner(NamedTuple):
    """A base learner: what it knows, and its frozen network."""

    about: BaseLearnerConfig
    network: PSPNet


def build(
    config: TrainConfig, base_learner: BaseLearner | None, backbone_weights: Path | None = None
) -> tuple[ModelConfig, HSNet | TwoPass]:
    """Build a meta-learner with random weights on frozen backbones.

    Raises ModelError if it needs a base learner, and there is none.
    """
    if base_learner is None and config.needs_base_learner:
        raise ModelError(
            "B_sem is a base learner's: give its folder with --base-learner (`kshot pretrain`), or a "
            "model that has one (--base-learner two-pass)."
        )
    model = ModelConfig(
        method=config.method,
        backbone=config.backbone,
        backbones=config.backbones,
        channels=config.channels,
        center_features=config.center_features,
        sharpen_mask=bool(config.sharpen_mask),
        taps=config.taps,
        first_stride=config.first_stride,
        prior=config.prior,
        base_stride=config.base_stride,
        fusion=config.fusion,
        base_classes=() if base_learner is None else base_learner.about.base_classes,
        image_size=config.sizes[-1].image_size,
        selected_on=config.select_on,
    )
    backbone = partial(imagenet_backbone, model, backbone_weights)
    method = cast(HSNet | TwoPass, build_method(model, backbone))
    if base_learner is not None:
        state = base_learner.network.state_dict()
        method.load_state_dict({k: state[n] for k, n in base_learner_names(method).items()}, strict=False)
    return model, method


def read_base_learner(config: TrainConfig, folder: Path) -> BaseLearner:
    """Read a base learner, as a training needs it.

    Raises ModelError or WeightsError as `load_base_learner` does, and ModelError or DataError if it is of
    another backbone, or has seen what is chosen on.
    """
    about, network = load_base_learner(folder, output_stride=config.base_stride, taps=config.taps)
    if timm_name(about.backbone) != timm_name(config.backbone):
        raise ModelError(
            f"The base learner in {folder} has the backbone {about.backbone}, but the meta-learner "
            f"has {config.backbone}. They share one encoder: use the same for both."
        )
    if config.select_on == "base":
        check_held_out(config.data, config.fold, about.base_classes)
    own = own_classes(config, about.base_classes)
    return BaseLearner(*forget(about, network, own)) if own else BaseLearner(about, network)


def own_classes(config: TrainConfig, base_classes: tuple[str, ...]) -> tuple[str, ...]:
    """Name the base classes that a folder of one's own shows, if its base learner is somebody else's.

    The model shall find them, and the base map would keep them out of every answer. A base learner that
    knows nothing else was trained on the folder, to find other things: it stays as it is.
    """
    if benchmark_of(config.data) != "folder":
        return ()
    fold = train_fold(config.data, config.fold, hold_out=False)
    names = {fold.class_names[class_id].casefold() for class_id in fold.images}
    own = tuple(name for name in base_classes if name.casefold() in names)
    return own if len(own) < len(base_classes) else ()


def centre(matcher: HSNet, reader: FeatureReader, photographs: Sequence[str]) -> None:
    """Measure the mean features of some training photographs, and give them to a matcher that lacks them."""
    lacks_cls, lacks_sem = (
        means is not None and not means.any() for means in (matcher.cls_means, matcher.sem_means)
    )
    if not lacks_cls and not lacks_sem:
        return
    read = [reader.read(name) for name in _some(photographs)]
    for means, lacks, pyramids in (
        (matcher.cls_means, lacks_cls, [one.cls for one in read]),
        (matcher.sem_means, lacks_sem, [one.sem for one in read]),
    ):
        if means is not None and lacks:
            means.copy_(_mean(pyramids))


def centre_others(readers: dict[int, FeatureReader], image_size: int, photographs: Sequence[str]) -> None:
    """Measure the mean features of the base learners that only train, at one size, for readers of all sizes.

    They are in no checkpoint: a training that goes on measures them again.
    """
    reader = readers[image_size]
    for learner in range(1, len(reader.sem)):
        means = _mean([reader.read(name, learner=learner).sem for name in _some(photographs)])
        for one in readers.values():
            one.other_means[learner] = means.to(one.device)


class Matching(nn.Module):
    """A method with its losses."""

    def __init__(self, method: HSNet | TwoPass, kappa: float, dice_weight: float = 0.0) -> None:
        super().__init__()
        self.method: HSNet | TwoPass = method
        self.kappa, self.dice_weight = kappa, dice_weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Give the losses of a batch of episodes."""
        prediction = self.method.match(batch.query, batch.support, batch.episode_class)
        return losses(prediction, batch.query_mask, self.kappa, self.dice_weight)


def groups(learner: Matching, config: TrainConfig) -> list[dict[str, Any]]:
    """Sort what is learnt into groups with their learning rates, the fusion and the prior last."""
    learned = {name: weight for name, weight in learner.named_parameters() if weight.requires_grad}
    fast = [weight for name, weight in learned.items() if name.startswith(FAST)]
    matching = [weight for name, weight in learned.items() if not name.startswith(FAST)]
    fusion_lr = config.lr if config.fusion_lr is None else config.fusion_lr
    found: list[dict[str, Any]] = [{"params": matching, "lr": config.lr}, {"params": fast, "lr": fusion_lr}]
    return [group for group in found if group["params"]]


def rate(config: TrainConfig, steps: int) -> Callable[[int], float]:
    """Give the learning rate's factor by step: a rise over the warm-up, then constant or a cosine to 0."""

    def factor(step: int) -> float:
        rise = min((step + 1) / (config.warmup + 1), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * step / steps)) if config.decay == "cosine" else 1.0
        return rise * fall

    return factor


def size_at(config: TrainConfig, step: int) -> int:
    """Give the image size of a step."""
    for stage in config.sizes:
        if step < stage.steps:
            return stage.image_size
        step -= stage.steps
    return config.sizes[-1].image_size


def _some(photographs: Sequence[str]) -> Sequence[str]:
    return photographs[:: math.ceil(len(photographs) / CENTRED_ON)]


def _mean(pyramids: Sequence[FeaturePyramid | None]) -> Tensor:
    return torch.stack([tap_means(pyramid) for pyramid in pyramids if pyramid is not None]).mean(dim=0)


def in_groups(items: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Give items in lists of `size`."""
    while group := list(islice(items, size)):
        yield group


def _split(indices: range, parts: int) -> Iterator[range]:
    size = -(-len(indices) // parts)
    return (indices[place : place + size] for place in range(0, len(indices), size))
