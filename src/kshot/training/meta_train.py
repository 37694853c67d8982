"""Train a meta-learner, hsnet or two-pass, on a fold's base classes, with both backbones frozen."""

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
from kshot.data.benchmarks import benchmark_of, open_dataset
from kshot.data.folder import Folder
from kshot.errors import ModelError
from kshot.evaluation.selection import check_holdout_classes
from kshot.io.provenance import record_provenance
from kshot.methods.adaptive import Adaptive
from kshot.methods.base import Method
from kshot.methods.config import ModelConfig
from kshot.methods.hsnet import HSNet
from kshot.methods.hub import CONFIG_FILE
from kshot.methods.saving import (
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
from kshot.models.losses import training_losses
from kshot.training.base_learner_files import (
    BaseLearnerConfig,
    drop_classes,
    find_base_learner,
    load_base_learner,
)
from kshot.training.cards import model_card
from kshot.training.episodes import Batch, CachedEncoder, TrainingEpisodes
from kshot.training.feature_files import DiskBudget
from kshot.training.recipes import RuntimeArgs, TrainConfig
from kshot.training.start_from import FROZEN, find_start, load_start
from kshot.training.trainer import Phase, Trainer, fit, set_up
from kshot.training.validation import Validation
from kshot.training.view_episodes import ViewEpisodes

FAST = ("method.fusion.", "method.prior.", "method.matcher.prior.")
"""Prefixes of the weights that `fusion_lr` applies to."""

NUM_MEAN_IMAGES = 200
"""Largest number of images for the mean features."""

SANITY_EPISODES = 20
"""Number of validation episodes before the first step, which reveal a broken setup at once."""


def train(
    config: TrainConfig,
    dataset: Dataset,
    out: Path,
    runtime: RuntimeArgs,
    *,
    base_learners: Sequence[str | Path] = (),
    extra: Mapping[str, Folder] | None = None,
    start_from: str | Path | None = None,
    backbone_weights: Path | None = None,
    arguments: tuple[str, ...] = (),
) -> None:
    """Train a meta-learner, and write it to the run's folder `out`, ready for `Segmenter.from_pretrained`.

    base_learners: a base learner's folder, or a model with one, for two-pass and for hsnet with backbones
    "sem" or "both"; default: that of start_from. Further ones are for cross-fitting, see `TrainingEpisodes`.
    extra: extra data sets by name, for a config with a `mix`.
    start_from: a model, as `load_model` takes it, with the weights to start from instead of random ones; an
    hsnet can also become the first part of a two-pass.
    """
    # Set up.
    start_time, provenance = time.monotonic(), record_provenance(arguments)
    folder = None if start_from is None else find_start(config, start_from)
    if not base_learners and config.needs_base_learner and start_from is not None:
        base_learners = [start_from]
    learner_folders = [find_base_learner(one) for one in base_learners]
    digests = [folder_sha256(one) for one in learner_folders]
    settings: dict[str, Any] = {
        "base_learner_sha256": digests[0] if digests else None,
        "other_learners_sha256": tuple(digests[1:]),
        "start_from_sha256": None if folder is None else folder_sha256(folder),
    }
    if folder is not None:
        start = read_config(folder / CONFIG_FILE)
        settings["center_features"] = start.center_features
        if config.sharpen_mask is None:
            settings["sharpen_mask"] = start.sharpen_mask
    if config.mix is not None:
        settings["extra_data"] = tuple(extra or ())
        if len(learner_folders) > 1:
            raise ModelError("A training with a mix of episodes takes one base learner. Give one.")
    config = config.model_copy(update=settings)
    accelerator, run, checkpoint = set_up(config, out, runtime)

    # Build.
    torch.manual_seed(config.seed)
    learners = [read_base_learner(config, one) for one in learner_folders]
    model, method = build(config, learners[0] if learners else None, backbone_weights)
    if folder is not None:
        load_start(folder, config, method, backbone_weights)
    method.to(accelerator.device)
    matcher = method.matcher
    networks = [learner.network.to(accelerator.device) for learner in learners]
    budget = DiskBudget(runtime.cache, int(runtime.cache_gb * 2**30))

    def encoder_for(images: Dataset, size: int) -> CachedEncoder:
        return CachedEncoder(images, matcher, networks, size, budget, accelerator.device)

    encoders = {stage.image_size: encoder_for(dataset, stage.image_size) for stage in config.sizes}
    episodes: TrainingEpisodes | ViewEpisodes
    if config.mix is None:
        episodes = TrainingEpisodes(config, dataset, [learner.about.base_classes for learner in learners])
    else:
        base_classes = learners[0].about.base_classes if learners else ()
        episodes = ViewEpisodes(config, dataset, extra or {}, base_classes)
    if checkpoint is None:
        measure_means(matcher, encoders[model.image_size], episodes.image_names)
    if matcher.sem_means is not None:
        measure_other_means(encoders, model.image_size, episodes.image_names)
    images = dataset if runtime.dev_root is None else open_dataset(config.data, runtime.dev_root)
    validation = Validation(config, images, encoder_for(images, model.image_size), accelerator)
    if checkpoint is not None:
        run.truncate_after(checkpoint.phase, checkpoint.step)
    elif accelerator.is_main_process:
        run.begin()
        scores = validation.score(method, limit=SANITY_EPISODES) | validation.prototype(method)
        run.log({"phase": 0, "step": 0, "validation": scores})

    # Train.
    steps = sum(stage.steps for stage in config.sizes)
    learner = MetaLearner(method, config.kappa, config.dice)
    trainer = Trainer(
        learner,
        Adam(param_groups(learner, config), fused=True),
        Phase(
            0,
            steps,
            lr_schedule(config, steps),
            config.seed,
            runtime,
            clip=config.clip,
            ema=config.ema,
            validate_every=config.validate_every,
            describe=lambda step: episodes.names(range(step * config.batch, (step + 1) * config.batch)),
        ),
        accelerator,
        frozen=FROZEN,
        checkpoint=checkpoint,
    )

    def batches(first: int) -> Iterator[list[Batch]]:
        rank, world = accelerator.process_index, accelerator.num_processes
        for size, of_size in groupby(range(first, steps), key=lambda step: size_at(config, step)):
            shares = (range(s * config.batch + rank, (s + 1) * config.batch, world) for s in of_size)
            parts = [part for share in shares for part in _split(share, config.accumulate)]
            loaded: Iterator[Batch]
            if isinstance(episodes, TrainingEpisodes):
                loaded = map(partial(episodes.load, encoder=encoders[size]), parts)
            else:
                loaded = episodes.batches(parts, size, method, runtime.workers)
            yield from chunked(loaded, config.accumulate)

    def validate(learner: MetaLearner) -> dict[str, float]:
        scores = validation.score(learner.method)
        if config.select_on is None or scores["miou"] > max(run.validations("miou"), default=-1.0):
            save_model(*finished(config, model, learner.method), run.path, half=True)
        return scores

    fit(trainer, batches, run, validate)

    # Write the card and the metrics.
    if accelerator.is_main_process:
        all_scores = run.validations("miou")
        scores = {"miou": all_scores[-1] if config.select_on is None else max(all_scores)}
        provenance = provenance.with_duration(time.monotonic() - start_time)
        run.finish({"validation": scores}, model_card(model, config, scores, provenance), provenance)


def finished(config: TrainConfig, model: ModelConfig, method: HSNet | TwoPass) -> tuple[ModelConfig, Method]:
    """Return the model to save: the trained network, or the method that adapts, around it."""
    if not (config.adapt and isinstance(method, TwoPass)):
        return model, method
    adaptive = {"method": "adaptive", "image_size": 2 * model.image_size - 1}
    return model.model_copy(update=adaptive), Adaptive(method)


class BaseLearner(NamedTuple):
    """A base learner: its config and its frozen network."""

    about: BaseLearnerConfig
    network: PSPNet


def build(
    config: TrainConfig, base_learner: BaseLearner | None, backbone_weights: Path | None = None
) -> tuple[ModelConfig, HSNet | TwoPass]:
    """Return a meta-learner with random weights on frozen backbones, and its model config.

    Raises ModelError if it needs a base learner, and there is none.
    """
    if base_learner is None and config.needs_base_learner:
        raise ModelError(
            "B_sem comes from a base learner: give its folder with --base-learner (`kshot pretrain`), or a "
            "model that has one (--base-learner two-pass)."
        )
    model = ModelConfig(
        method=config.method,
        backbone=config.backbone,
        backbones=config.backbones,
        channels=config.channels,
        center_features=config.center_features,
        sharpen_mask=bool(config.sharpen_mask),
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
    """Return a base learner for a training.

    Raises ModelError or WeightsError as `load_base_learner` does, and ModelError or DataError if it has
    another backbone, or was trained on the classes that the checkpoint is chosen on.
    """
    about, network = load_base_learner(folder, output_stride=config.base_stride)
    if timm_name(about.backbone) != timm_name(config.backbone):
        raise ModelError(
            f"The base learner in {folder} has the backbone {about.backbone}, but the meta-learner "
            f"has {config.backbone}. They share one encoder: use the same for both."
        )
    if config.select_on == "base":
        check_holdout_classes(config.data, config.fold, about.base_classes)
    dropped = classes_to_drop(config, about.base_classes)
    return BaseLearner(*drop_classes(about, network, dropped)) if dropped else BaseLearner(about, network)


def classes_to_drop(config: TrainConfig, base_classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the base classes that are also classes of a user folder: the base map would suppress them.

    If all are, the base learner was trained on this folder, for a model of other classes: none is dropped.
    """
    if benchmark_of(config.data) != "folder":
        return ()
    fold = train_fold(config.data, config.fold, exclude_holdout=False)
    names = {fold.class_names[class_id].casefold() for class_id in fold.images}
    shared = tuple(name for name in base_classes if name.casefold() in names)
    return shared if len(shared) < len(base_classes) else ()


def measure_means(matcher: HSNet, encoder: CachedEncoder, image_names: Sequence[str]) -> None:
    """Measure the mean features of some training images, and store them in a matcher that lacks them."""
    lacks_cls, lacks_sem = (
        means is not None and not means.any() for means in (matcher.cls_means, matcher.sem_means)
    )
    if not lacks_cls and not lacks_sem:
        return
    encoded = [encoder.encode(name) for name in _sample(image_names)]
    for means, lacks, pyramids in (
        (matcher.cls_means, lacks_cls, [one.cls for one in encoded]),
        (matcher.sem_means, lacks_sem, [one.sem for one in encoded]),
    ):
        if means is not None and lacks:
            means.copy_(_mean(pyramids))


def measure_other_means(
    encoders: dict[int, CachedEncoder], image_size: int, image_names: Sequence[str]
) -> None:
    """Measure the mean features of the further base learners at one size, for the encoders of all sizes.

    They are in no checkpoint: a resumed training measures them again.
    """
    encoder = encoders[image_size]
    for learner in range(1, len(encoder.sem)):
        means = _mean([encoder.encode(name, learner=learner).sem for name in _sample(image_names)])
        for one in encoders.values():
            one.other_means[learner] = means.to(one.device)


class MetaLearner(nn.Module):
    """A method with its losses."""

    def __init__(self, method: HSNet | TwoPass, kappa: float, dice_weight: float = 0.0) -> None:
        super().__init__()
        self.method: HSNet | TwoPass = method
        self.kappa, self.dice_weight = kappa, dice_weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch of episodes, by name."""
        prediction = self.method.match(batch.query, batch.support, batch.episode_class)
        return training_losses(prediction, batch.query_mask, self.kappa, self.dice_weight)


def param_groups(learner: MetaLearner, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the trained weights in groups with their learning rates; the fusion and the prior come last."""
    trained = {name: weight for name, weight in learner.named_parameters() if weight.requires_grad}
    fast = [weight for name, weight in trained.items() if name.startswith(FAST)]
    others = [weight for name, weight in trained.items() if not name.startswith(FAST)]
    fusion_lr = config.lr if config.fusion_lr is None else config.fusion_lr
    groups: list[dict[str, Any]] = [{"params": others, "lr": config.lr}, {"params": fast, "lr": fusion_lr}]
    return [group for group in groups if group["params"]]


def lr_schedule(config: TrainConfig, steps: int) -> Callable[[int], float]:
    """Return the learning rate's factor by step: a rise over the warm-up, then constant or a cosine to 0."""

    def factor(step: int) -> float:
        rise = min((step + 1) / (config.warmup + 1), 1.0)
        fall = 0.5 * (1 + math.cos(math.pi * step / steps)) if config.decay == "cosine" else 1.0
        return rise * fall

    return factor


def size_at(config: TrainConfig, step: int) -> int:
    """Return the image size of a step."""
    for stage in config.sizes:
        if step < stage.steps:
            return stage.image_size
        step -= stage.steps
    return config.sizes[-1].image_size


def _sample(image_names: Sequence[str]) -> Sequence[str]:
    return image_names[:: math.ceil(len(image_names) / NUM_MEAN_IMAGES)]


def _mean(pyramids: Sequence[FeaturePyramid | None]) -> Tensor:
    return torch.stack([tap_means(pyramid) for pyramid in pyramids if pyramid is not None]).mean(dim=0)


def chunked(items: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield items in lists of `size`."""
    while chunk := list(islice(items, size)):
        yield chunk


def _split(indices: range, parts: int) -> Iterator[range]:
    size = -(-len(indices) // parts)
    return (indices[start : start + size] for start in range(0, len(indices), size))
