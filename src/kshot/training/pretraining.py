"""Train the base learner: a PSPNet on a fold's base classes, whose backbone and head are B_sem and H_cls."""

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
from kshot.methods.saving import folder_sha256
from kshot.models.base_learner import PSPNet
from kshot.models.hypercorrelation import resize
from kshot.models.imagenet_weights import load_weights
from kshot.training.base_data import BaseData, BaseValidation, CropDataset
from kshot.training.base_learner_files import (
    BaseLearnerConfig,
    find_base_learner,
    load_base_learner,
    save_base_learner,
    transfer_weights,
)
from kshot.training.cards import base_learner_card
from kshot.training.recipes import PretrainConfig, RuntimeArgs
from kshot.training.trainer import Phase, Trainer, fit, set_up
from kshot.types import IGNORE_INDEX

POLY_POWER = 0.9
SANITY_IMAGES = 8
"""Number of validation images before the first step, which reveal a broken setup at once."""


def pretrain(
    config: PretrainConfig,
    dataset: Dataset,
    out: Path,
    runtime: RuntimeArgs,
    *,
    start_from: str | Path | None = None,
    backbone_weights: Path | None = None,
    arguments: tuple[str, ...] = (),
) -> None:
    """Train a base learner, and write it to the run's folder `out`, for `train`.

    start_from: a base learner, as `find_base_learner` takes it, with the weights to start from; its classes
    may differ.
    """
    # Set up.
    start_time, provenance = time.monotonic(), record_provenance(arguments)
    if start_from is not None:
        folder = find_base_learner(start_from)
        config = config.model_copy(update={"start_from_sha256": folder_sha256(folder)})
    accelerator, run, checkpoint = set_up(config, out, runtime)

    # Build.
    torch.manual_seed(config.seed)
    data = BaseData(config, dataset)
    validation = BaseValidation(data, accelerator)
    network = _build(config, data, 0)
    if checkpoint is None:
        load_weights(network.backbone, backbone_weights)
        if start_from is not None:
            transfer_weights(*load_base_learner(folder), network, data.class_names)
        run.begin()
        run.log({"phase": 0, "step": 0, "validation": validation.score(network, limit=SANITY_IMAGES)})
    else:
        run.truncate_after(checkpoint.phase, checkpoint.step)

    # Train each phase, with a validation at its end; keep the best weights.
    about = BaseLearnerConfig(
        backbone=config.backbone,
        base_classes=data.class_names,
        trained_on=f"{config.data}, fold {config.fold}",
    )

    def validate(learner: PSPNetTask) -> dict[str, float]:
        scores = validation.score(learner.network)
        if not scores or scores["base_miou"] >= max(run.validations("base_miou"), default=0.0):
            save_base_learner(about, learner.network, run.path)
        return scores

    for number in range(0 if checkpoint is None else checkpoint.phase, len(config.phases)):
        network = _build(config, data, number, network)
        crops = CropDataset(data, number)
        trainer = Trainer(
            PSPNetTask(network),
            _optimiser(config, network),
            Phase(
                number,
                crops.steps,
                poly_schedule(crops.steps),
                config.seed,
                runtime,
                clip=config.clip,
                describe=crops.names,
            ),
            accelerator,
            checkpoint=checkpoint if checkpoint is not None and checkpoint.phase == number else None,
        )
        batches = partial(crops.batches, accelerator=accelerator, workers=runtime.workers)
        fit(trainer, batches, run, validate)

    # Write the card and the metrics.
    if accelerator.is_main_process:
        scores = run.best_validation("base_miou")
        provenance = provenance.with_duration(time.monotonic() - start_time)
        metrics = {
            "validation": scores,
            "num_train_images": len(data.epoch(0)),
            "num_val_images": len(data.val_images),
        }
        run.finish(metrics, base_learner_card(about, config, scores, provenance), provenance)


class PSPNetTask(nn.Module):
    """A PSPNet with its loss: cross-entropy per pixel at the size of the labels."""

    def __init__(self, network: PSPNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return the loss of images (B, 3, H, W) and labels (B, H, W), by name."""
        images, labels = batch
        logits = resize(self.network(images).float(), labels.shape[-2:])
        return {"base": F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)}


def poly_schedule(steps: int) -> Callable[[int], float]:
    """Return the learning rate's factor by step, (1 - step / steps) ** 0.9, as in PSPNet."""
    return lambda step: (1 - step / steps) ** POLY_POWER


def _build(config: PretrainConfig, data: BaseData, number: int, before: PSPNet | None = None) -> PSPNet:
    """Return a phase's network, with the weights of the previous phase."""
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
