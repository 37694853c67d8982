"""Train the base learner: a PSPNet on a fold's base classes, whose parts become B_sem and H_cls."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

from kshot.data.base import Dataset
from kshot.io.provenance import record_provenance
from kshot.methods.hub import folder_sha256
from kshot.models.base_learner import PSPNet
from kshot.models.hypercorrelation import resize
from kshot.models.imagenet_weights import load_weights
from kshot.training.base_data import BaseData, BaseReader, BaseValidation
from kshot.training.base_learner_files import (
    BaseLearnerConfig,
    extend,
    find_base_learner,
    load_base_learner,
    save_base_learner,
)
from kshot.training.cards import base_learner_card
from kshot.training.recipes import PretrainConfig
from kshot.training.trainer import Machine, Phase, Training, fit, set_up
from kshot.types import IGNORE_INDEX

POLY_POWER = 0.9
LOOK = 8
"""Photographs that are scored before the first step, so that a broken run shows at once."""


def pretrain(
    config: PretrainConfig,
    dataset: Dataset,
    out: Path,
    machine: Machine,
    *,
    start_from: str | Path | None = None,
    backbone_weights: Path | None = None,
    workers: int = 0,
    arguments: tuple[str, ...] = (),
) -> None:
    """Train a base learner, and write it to the run's folder `out`, for `train` to build upon.

    start_from: a base learner, as `find_base_learner` takes it, to train on from; it may know other classes.
    """
    # Set up.
    start, provenance = time.monotonic(), record_provenance(arguments)
    if start_from is not None:
        folder = find_base_learner(start_from)
        config = config.model_copy(update={"start_from_sha256": folder_sha256(folder)})
    accelerator, run, checkpoint = set_up(config, out, machine)

    # Build.
    torch.manual_seed(config.seed)
    data = BaseData(config, dataset)
    validation = BaseValidation(data, accelerator)
    network = _build(config, data, 0)
    if checkpoint is None:
        load_weights(network.backbone, backbone_weights)
        if start_from is not None:
            extend(*load_base_learner(folder), network, data.class_names)
        run.begin()
        run.log({"phase": 0, "step": 0, "validation": validation.score(network, limit=LOOK)})
    else:
        run.forget_after(checkpoint.phase, checkpoint.step)

    # Fit, phase by phase, with a validation at each one's end; keep the best.
    about = BaseLearnerConfig(
        backbone=config.backbone,
        base_classes=data.class_names,
        trained_on=f"{config.data}, fold {config.fold}",
    )

    def validate(learner: BaseLearning) -> dict[str, float]:
        scores = validation.score(learner.network)
        if not scores or scores["base_miou"] >= max(run.validations("base_miou"), default=0.0):
            save_base_learner(about, learner.network, run.path)
        return scores

    for number in range(0 if checkpoint is None else checkpoint.phase, len(config.phases)):
        network = _build(config, data, number, network)
        reader = BaseReader(data, number)
        training = Training(
            BaseLearning(network),
            _optimiser(config, network),
            Phase(
                number,
                reader.steps,
                poly(reader.steps),
                config.seed,
                machine,
                clip=config.clip,
                shows=reader.names,
            ),
            accelerator,
            checkpoint=checkpoint if checkpoint is not None and checkpoint.phase == number else None,
        )
        batches = partial(reader.batches, accelerator=accelerator, workers=workers)
        fit(training, batches, run, validate)

    # Sum up.
    if accelerator.is_main_process:
        scores = run.best_validation("base_miou")
        provenance = provenance.with_duration(time.monotonic() - start)
        metrics = {"validation": scores, "photographs": len(data.epoch(0)), "kept_back": len(data.kept_back)}
        run.finish(metrics, base_learner_card(about, config, scores, provenance), provenance)


class BaseLearning(nn.Module):
    """A PSPNet with its loss: cross-entropy per pixel, at the size of the labels."""

    def __init__(self, network: PSPNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Give the loss of images (B, 3, H, W) and labels (B, H, W)."""
        images, labels = batch
        logits = resize(self.network(images).float(), labels.shape[-2:])
        return {"base": F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)}


def poly(steps: int) -> Callable[[int], float]:
    """Let the learning rate fall to 0 as (1 - step / steps) ** 0.9, as PSPNet does."""
    return lambda step: (1 - step / steps) ** POLY_POWER


def _build(config: PretrainConfig, data: BaseData, number: int, before: PSPNet | None = None) -> PSPNet:
    """Build a phase's network, with the weights of the phase before."""
    phase = config.phases[number]
    network = PSPNet(
        config.backbone, len(data.class_ids), output_stride=phase.output_stride, learns=phase.learns
    )
    if before is not None:
        network.load_state_dict(before.state_dict())
    return network


def _optimiser(config: PretrainConfig, network: PSPNet) -> Optimizer:
    groups = [
        {"params": [p for p in network.backbone.parameters() if p.requires_grad], "lr": config.backbone_lr},
        {"params": list(network.head.parameters()), "lr": config.head_lr},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimiser == "sgd":
        return SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)
    return AdamW(groups, weight_decay=config.weight_decay, fused=True)
