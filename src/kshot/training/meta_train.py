"""Train a meta-learner: hsnet or two-pass on a fold's base classes, with both backbones frozen."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam

from kshot.base_learners import load_base_learner
from kshot.benchmark.provenance import record_provenance
from kshot.benchmark.selection import check_held_out
from kshot.data.truth import Dataset
from kshot.errors import ModelError
from kshot.methods.hsnet import HSNet
from kshot.methods.two_pass import TwoPass
from kshot.network.backbones import timm_name
from kshot.network.base_learner import PSPNet
from kshot.network.hypercorrelation import tap_means
from kshot.network.losses import losses
from kshot.network.weights import fill, load_backbone, read_state, state_sha256
from kshot.pretrained import WEIGHTS_FILE, ModelConfig, base_learner_names, build_method, save_model
from kshot.training.cards import model_card
from kshot.training.episodes import Batch, FeatureReader, TrainingEpisodes
from kshot.training.feature_cache import Budget
from kshot.training.loop import Machine, Phase, Training, fit, set_up
from kshot.training.recipes import TrainConfig
from kshot.training.validation import Validation

FROZEN = tuple(
    f"method.{part}."
    for part in ("cls_backbone", "sem_backbone", "matcher.cls_backbone", "matcher.sem_backbone", "base_head")
)
"""What a meta-learner holds, but never learns."""

FUSION = "method.fusion."

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
    base_learner: Path | None = None,
    start_from: Path | None = None,
    backbone_weights: Path | None = None,
    arguments: tuple[str, ...] = (),
) -> None:
    """Train a meta-learner, and write it to the run's folder `out`, ready for `Segmenter.from_pretrained`.

    base_learner: the folder of a base learner, for two-pass, and hsnet that matches by "sem" or "both".
    start_from: the folder of a model whose meta-learner is trained on, instead of random weights.
    """
    # Set up.
    start, provenance = time.monotonic(), record_provenance(arguments)
    digests = {"base_learner_sha256": _digest(base_learner), "start_from_sha256": _digest(start_from)}
    config = config.model_copy(update=digests)
    accelerator, run, checkpoint = set_up(config, out, machine)

    # Build.
    torch.manual_seed(config.seed)
    model, method, network = build(config, base_learner, backbone_weights)
    if start_from is not None:
        path = start_from / WEIGHTS_FILE
        own = {k: v for k, v in method.state_dict().items() if f"method.{k}".startswith(FROZEN)}
        given = {k: v for k, v in read_state(path).items() if not f"method.{k}".startswith(FROZEN)}
        fill(method, own | given, what=f"Weights in {path}")
    method.to(accelerator.device)
    matcher = method.matcher if isinstance(method, TwoPass) else method
    budget = Budget(cache, int(cache_gb * 2**30))
    readers = {
        stage.image_size: FeatureReader(
            dataset, matcher, network, stage.image_size, budget, accelerator.device
        )
        for stage in config.sizes
    }
    episodes = TrainingEpisodes(config, dataset, model.base_classes)
    if config.centred and start_from is None and checkpoint is None:
        centre(matcher, readers[model.image_size], episodes.photographs)
    validation = Validation(config, dataset, readers[model.image_size], accelerator)
    if checkpoint is not None:
        run.forget_after(checkpoint.phase, checkpoint.step)
    elif accelerator.is_main_process:
        run.begin()
        scores = validation.score(method, limit=LOOK) | validation.prototype(method)
        run.log({"phase": 0, "step": 0, "validation": scores})

    # Fit.
    steps = sum(stage.steps for stage in config.sizes)
    learner = Matching(method)
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
        ),
        accelerator,
        frozen=FROZEN,
        checkpoint=checkpoint,
    )

    def batches(first: int) -> Iterator[list[Batch]]:
        rank, world = accelerator.process_index, accelerator.num_processes
        for step in range(first, steps):
            mine = range(step * config.batch + rank, (step + 1) * config.batch, world)
            reader = readers[size_at(config, step)]
            yield [episodes.read(part, reader) for part in _split(mine, config.accumulate)]

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
        provenance = provenance.after(time.monotonic() - start)
        run.finish({"validation": scores}, model_card(model, config, scores, provenance), provenance)


def build(
    config: TrainConfig, base_learner: Path | None, backbone_weights: Path | None = None
) -> tuple[ModelConfig, HSNet | TwoPass, PSPNet | None]:
    """Build a meta-learner with random weights on frozen backbones, and its base learner if it has one.

    Raises ModelError if the base learner is missing, of another backbone, or has seen what is chosen on.
    """
    about, network = None, None
    if base_learner is not None:
        about, network = load_base_learner(base_learner)
    elif config.method == "two-pass" or config.matched_by != "cls":
        raise ModelError("B_sem is a base learner's: give its folder with --base-learner (`kshot pretrain`).")
    if about is not None:
        if timm_name(about.backbone) != timm_name(config.backbone):
            raise ModelError(
                f"The base learner in {base_learner} has the backbone {about.backbone}, but the meta-learner "
                f"has {config.backbone}. They share one encoder: use the same for both."
            )
        if config.select_on == "base":
            check_held_out(config.data, config.fold, about.base_classes)
    model = ModelConfig(
        method=config.method,
        backbone=config.backbone,
        matched_by=config.matched_by,
        channels=config.channels,
        centred=config.centred,
        base_classes=() if about is None else about.base_classes,
        image_size=config.sizes[-1].image_size,
        selected_on=config.select_on,
    )
    method = cast(HSNet | TwoPass, build_method(model, lambda name: load_backbone(name, backbone_weights)))
    if network is not None:
        state = network.state_dict()
        method.load_state_dict({k: state[n] for k, n in base_learner_names(method).items()}, strict=False)
    return model, method, network


def centre(matcher: HSNet, reader: FeatureReader, photographs: Sequence[str]) -> None:
    """Measure the mean features of some of the training photographs, and give them to the matcher."""
    some = photographs[:: math.ceil(len(photographs) / CENTRED_ON)]
    read = [reader.read(name) for name in some]
    for means, pyramids in (
        (matcher.cls_means, [one.cls for one in read]),
        (matcher.sem_means, [one.sem for one in read]),
    ):
        if means is not None:
            of_each = [tap_means(pyramid) for pyramid in pyramids if pyramid is not None]
            means.copy_(torch.stack(of_each).mean(dim=0))


class Matching(nn.Module):
    """A method with its losses."""

    def __init__(self, method: HSNet | TwoPass) -> None:
        super().__init__()
        self.method: HSNet | TwoPass = method

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Give the losses of a batch of episodes."""
        if isinstance(self.method, TwoPass):
            prediction = self.method.match(batch.query, batch.support, batch.episode_class)
        else:
            prediction = self.method.match(batch.query, batch.support)
        return losses(prediction, batch.query_mask)


def groups(learner: Matching, config: TrainConfig) -> list[dict[str, Any]]:
    """Sort what is learnt into groups with their learning rates, the fusion's last."""
    learned = {name: weight for name, weight in learner.named_parameters() if weight.requires_grad}
    fusion = [weight for name, weight in learned.items() if name.startswith(FUSION)]
    matching = [weight for name, weight in learned.items() if not name.startswith(FUSION)]
    fusion_lr = config.lr if config.fusion_lr is None else config.fusion_lr
    found: list[dict[str, Any]] = [{"params": matching, "lr": config.lr}, {"params": fusion, "lr": fusion_lr}]
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


def _digest(folder: Path | None) -> str | None:
    return None if folder is None else state_sha256(read_state(folder / WEIGHTS_FILE))


def _split(indices: range, parts: int) -> Iterator[range]:
    size = -(-len(indices) // parts)
    return (indices[place : place + size] for place in range(0, len(indices), size))
