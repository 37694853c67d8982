"""The training loop of both trainings: steps, log, validations, checkpoints.

Random numbers depend on the seed and the step alone: a resumed run continues as if it had never stopped.
"""

import gc
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.accelerator import Accelerator
from accelerate.utils.dataclasses import InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kshot.errors import DataError
from kshot.io.progress import progress
from kshot.methods.acceleration import multiplies_bf16
from kshot.training.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from kshot.training.recipes import Precision, PretrainConfig, RuntimeArgs, TrainConfig
from kshot.training.run_folder import SKIPPED_STEPS, RunFolder
from kshot.training.watchdog import watch

LOG_EVERY = 10
"""Steps between two lines of the log; checkpoints are written at such steps only."""

GROUP_TIMEOUT = timedelta(hours=6)
"""Time limit of the process group: long, as one process validates alone. The watchdog covers the steps."""

MAX_SKIPPED_IN_A_ROW = 3
"""Consecutive steps without a finite gradient that end a run. A single one may be due to half precision."""

Batches = Callable[[int], Iterator[list[Any]]]
"""Yields this process's share of each batch from a step on, in the parts that are accumulated."""

Validate = Callable[[Any], dict[str, float]]


def make_accelerator(runtime: RuntimeArgs, precision: Precision, accumulate: int, batch: int) -> Accelerator:
    """Return the accelerator for the device and, under a launcher, all processes.

    Raises DataError for a device that is not here, or if a batch cannot be divided evenly.
    """
    if runtime.device not in ("auto", "cpu", "cuda"):
        raise DataError(f"Training cannot use device '{runtime.device}'. Use auto, cpu or cuda.")
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise DataError("There is no CUDA device here. Use --device auto or cpu.")
    used = resolve_precision(precision, runtime.device)
    accelerator = Accelerator(
        cpu=runtime.device == "cpu",
        mixed_precision="no" if used == "fp32" else used,
        gradient_accumulation_steps=accumulate,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=GROUP_TIMEOUT)],
    )
    parts = accelerator.num_processes * accumulate
    if batch % parts:
        raise DataError(
            f"A batch of {batch} cannot be divided evenly among {accelerator.num_processes} processes "
            f"with {accumulate} parts each. Make the setting `batch` a multiple of {parts}."
        )
    return accelerator


def resolve_precision(precision: Precision, device: str) -> Precision:
    """Return the precision that "auto" stands for: bf16 on GPUs and CPUs that multiply it, else fp32."""
    if precision != "auto":
        return precision
    if device == "cpu" or not torch.cuda.is_available():
        return "bf16" if multiplies_bf16() else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp32"


def set_up(
    config: PretrainConfig | TrainConfig, out: Path, runtime: RuntimeArgs
) -> tuple[Accelerator, RunFolder, Checkpoint | None]:
    """Return the accelerator, the run's folder, and the checkpoint if the run is resumed; writes nothing.

    Raises DataError or WeightsError if the folder holds another run, or none to resume.
    """
    accelerator = make_accelerator(runtime, config.precision, config.accumulate, config.batch)
    run = RunFolder(
        out,
        config.model_dump_json(indent=2),
        resume=runtime.resume,
        is_main=accelerator.is_main_process,
        tensorboard=runtime.tensorboard,
        draw_curves=runtime.draw_curves,
    )
    return accelerator, run, read_checkpoint(run.checkpoint, run.recipe) if runtime.resume else None


def leave_processes() -> None:
    """Destroy the process group, if there is one. No object of the training may be in use any more.

    Otherwise a thread of the group may release its last message while Python shuts down. The process then
    dies by SIGABRT after it has done all its work, and its launcher with it.
    """
    gc.collect()  # reference cycles may hold the group
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Phase(NamedTuple):
    """One phase of training, with one optimizer.

    number: counts a run's phases from 0. lr_factor: factor of all learning rates by step. clip: largest norm
    of the gradient. ema: decay of the weights' moving average; None: the weights themselves are the result.
    validate_every: steps between validations, 0 for one at the end only. describe: returns the names of a
    step's images, for the log of skipped steps.
    """

    number: int
    steps: int
    lr_factor: Callable[[int], float]
    seed: int
    runtime: RuntimeArgs
    clip: float | None = None
    ema: float | None = None
    validate_every: int = 0
    describe: Callable[[int], Any] = str


class Step(NamedTuple):
    """The result of a step: its losses, and whether it was taken or skipped because of its gradient.

    broken: names of the weights whose gradients were not finite.
    """

    losses: dict[str, Tensor]
    is_taken: bool
    broken: tuple[str, ...] = ()


def fit(trainer: "Trainer", batches: Batches, run: RunFolder, validate: Validate) -> nn.Module:
    """Train one phase from its current step, and return the learner with the resulting weights.

    validate: scores a learner; called on the main process only.
    Raises DataError if losses are no longer finite; the skipped steps are written into the run's folder.
    """
    phase, is_main = trainer.phase, trainer.accelerator.is_main_process
    last_saved = time.monotonic()
    losses, num_skipped = _Losses(trainer.step), 0
    with (
        progress("Training", "steps", trainer.step) as on_progress,
        watch(trainer.accelerator.num_processes, phase.runtime.patience) as watchdog,
    ):
        for parts in batches(trainer.step):
            taken = trainer.take_step(parts)
            losses.add(taken)
            watchdog.step()
            if not taken.is_taken:
                num_skipped += 1
                run.log_skipped(_skipped(trainer, taken))
            if trainer.skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                raise DataError(_gave_up(trainer, run))
            step, is_last = trainer.step, trainer.step == phase.steps
            if step % LOG_EVERY == 0 or is_last:
                entry = losses.entry(trainer)
                losses = _Losses(step)
                run.log(entry)
                if is_main:
                    note = f"loss {sum(entry['losses'].values()):.3f}"
                    if num_skipped:
                        note += f", {num_skipped} steps skipped (see {SKIPPED_STEPS} in the run's folder)"
                    on_progress(step, phase.steps, note)
            if is_last or (phase.validate_every and step % phase.validate_every == 0):
                with watchdog.paused():
                    if is_main:
                        scores = validate(trainer.result)
                        run.log({"phase": phase.number, "step": step, "validation": scores})
                    trainer.accelerator.wait_for_everyone()
                losses.start_clock()
            is_due = (
                time.monotonic() - last_saved > phase.runtime.checkpoint_seconds and step % LOG_EVERY == 0
            )
            if is_main and (is_last or is_due):
                save_checkpoint(trainer.checkpoint(run.recipe), run.checkpoint)
                last_saved = time.monotonic()
            if is_last:
                break
    trainer.accelerator.wait_for_everyone()
    return trainer.result


class Trainer:
    """A learner and its optimizer in one phase.

    learner: returns its losses by name for a part of a batch. frozen: prefixes of its weights that are not
    trained, and not in checkpoints. checkpoint: the state to continue from, if it is of this phase.
    """

    def __init__(
        self,
        learner: nn.Module,
        optimiser: Optimizer,
        phase: Phase,
        accelerator: Accelerator,
        *,
        frozen: tuple[str, ...] = (),
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.learner, self.optimiser, self.phase, self.accelerator = learner, optimiser, phase, accelerator
        self.frozen, self.step = frozen, 0
        self.skipped_in_a_row = 0
        self.base_lrs = [float(group["lr"]) for group in optimiser.param_groups]
        self.prepared, self.prepared_optimiser = accelerator.prepare(learner, optimiser)
        self.average = None
        if phase.ema is not None:
            self.average = AveragedModel(learner, multi_avg_fn=_ema(phase.ema))
        if checkpoint is not None:
            learner.load_state_dict(checkpoint.learner, strict=False)
            optimiser.load_state_dict(checkpoint.optimiser)
            if self.average is not None and checkpoint.average is not None:
                self.average.load_state_dict(checkpoint.average, strict=False)
            self.step = checkpoint.step

    @property
    def result(self) -> nn.Module:
        """The learner with the resulting weights: their moving average, if there is one."""
        return self.learner if self.average is None else self.average.module

    def take_step(self, parts: list[Any]) -> Step:
        """Train on one batch; its losses are means over the parts, not over processes.

        If the gradient is not finite, all processes skip the step: the gradient is the sum of theirs.
        """
        torch.manual_seed(
            _seed(self.phase.seed, self.phase.number, self.step, self.accelerator.process_index)
        )
        for group, lr in zip(self.optimiser.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr * self.phase.lr_factor(self.step)
        self.prepared.train()
        buffers = [buffer.clone() for buffer in self.learner.buffers()]  # BatchNorm would keep a NaN
        losses: dict[str, Tensor] = {}
        is_taken, broken = True, tuple[str, ...]()
        for part in parts:
            with self.accelerator.accumulate(self.prepared):
                terms = self.prepared(part)
                self.accelerator.backward(torch.stack(list(terms.values())).sum())
                if self.accelerator.sync_gradients:
                    is_taken = self._clip()
                if is_taken:
                    self.prepared_optimiser.step()
                else:
                    broken = self._broken_gradients()
                self.prepared_optimiser.zero_grad()
            for name, term in terms.items():
                losses[name] = losses.get(name, 0) + term.detach() / len(parts)
        if not is_taken:
            for buffer, before in zip(self.learner.buffers(), buffers, strict=True):
                buffer.copy_(before)
        elif self.average is not None:
            self.average.update_parameters(self.learner)
        self.skipped_in_a_row = 0 if is_taken else self.skipped_in_a_row + 1
        self.step += 1
        return Step(losses, is_taken, broken)

    def _clip(self) -> bool:
        """Clip the gradient, if the phase says so; return whether it is finite."""
        clip = math.inf if self.phase.clip is None else self.phase.clip
        norm = self.accelerator.clip_grad_norm_(self.prepared.parameters(), clip)
        assert norm is not None
        # In fp16 gradients overflow now and then: the scaler skips such steps by itself.
        return self.accelerator.scaler is not None or math.isfinite(norm)

    def _broken_gradients(self) -> tuple[str, ...]:
        """Return the names of the weights whose gradients are not finite."""
        grads = ((name, weight.grad) for name, weight in self.learner.named_parameters())
        return tuple(name for name, grad in grads if grad is not None and not grad.isfinite().all())

    def checkpoint(self, recipe: str) -> Checkpoint:
        """Return the state after the last step."""
        average = None if self.average is None else self._trained(self.average, "module.")
        return Checkpoint(
            self.phase.number,
            self.step,
            self._trained(self.learner),
            self.optimiser.state_dict(),
            average,
            recipe,
        )

    def _trained(self, module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
        frozen = tuple(prefix + name for name in self.frozen)
        return {key: value for key, value in module.state_dict().items() if not key.startswith(frozen)}


class _Losses:
    """Losses and time since the last line of the log."""

    def __init__(self, step: int) -> None:
        self.first_step = step
        self.sums: dict[str, Tensor] = {}
        self.num_taken = 0
        self.start_clock()

    def start_clock(self) -> None:
        self.start = time.monotonic()

    def add(self, step: Step) -> None:
        if step.is_taken:
            self.num_taken += 1
            for name, value in step.losses.items():
                self.sums[name] = self.sums.get(name, 0) + value

    def entry(self, trainer: Trainer) -> dict[str, Any]:
        """Return a line of the log; the same on every process."""
        count = trainer.step - self.first_step
        losses: dict[str, float] = {}
        if self.sums:
            values = torch.stack(list(self.sums.values())) / self.num_taken
            means = trainer.accelerator.reduce(values, reduction="mean").tolist()
            losses = dict(zip(self.sums, means, strict=True))
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken:
            raise DataError(
                f"The loss '{broken[0]}' is {losses[broken[0]]} at step {trainer.step}. Lower the learning "
                "rate (--set lr), or train at full precision (--set precision=fp32)."
            )
        return {
            "phase": trainer.phase.number,
            "step": trainer.step,
            "lr": trainer.optimiser.param_groups[0]["lr"],
            "seconds_per_step": round((time.monotonic() - self.start) / count, 3),
            "losses": losses,
            **({"skipped": count - self.num_taken} if count > self.num_taken else {}),
        }


def _skipped(trainer: Trainer, step: Step) -> dict[str, Any]:
    """Return the record of a skipped step: its images, its losses, and which gradients were not finite."""
    number = trainer.step - 1
    return {
        "phase": trainer.phase.number,
        "step": number,
        "losses": {name: repr(value.item()) for name, value in step.losses.items()},
        "not_finite": list(step.broken),
        "shows": trainer.phase.describe(number),
    }


def _gave_up(trainer: Trainer, run: RunFolder) -> str:
    """Return the message of a run that skipped too many steps in a row."""
    return (
        f"The gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row, the last of them step "
        f"{trainer.step}. Lower the learning rate (--set lr), or train at full precision "
        "(--set precision=fp32); --resume continues from the last checkpoint. The steps' images are in "
        f"{run.path / SKIPPED_STEPS}."
    )


def _ema(decay: float) -> Any:
    return get_ema_multi_avg_fn(decay)


def _seed(*key: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")
