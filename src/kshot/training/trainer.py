"""The loop that both trainings run: a step, now and then a line of the log, a validation, a checkpoint.

What a step draws depends on the seed and the step alone: a resumed run goes on as if it had never stopped.
"""

import gc
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from kshot.methods.engine import multiplies_bf16
from kshot.training.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from kshot.training.recipes import Precision, PretrainConfig, TrainConfig
from kshot.training.run_folder import LEFT_OUT, DrawCurves, RunFolder
from kshot.training.watchdog import PATIENCE, watch

LOG_EVERY = 10
"""Steps between two lines of the log; checkpoints fall on such steps only."""

LONGEST_WAIT = timedelta(hours=6)
"""For a process that waits for others: long, as one validates alone. In between, the watchdog is quicker."""

GIVE_UP_AFTER = 3
"""Steps in a row whose gradient is not finite. One alone is left out: it may be a freak of half precision."""

Batches = Callable[[int], Iterator[list[Any]]]
"""From a step on: this process's part of each step's batch, cut into the parts that are accumulated."""

Validate = Callable[[Any], dict[str, float]]


@dataclass(frozen=True)
class Machine:
    """What a run does on this machine, which cannot change its result.

    device: auto, or cpu. checkpoint_seconds: time between checkpoints. patience: seconds without a step after
    which a process that trains with others ends itself, as one of them must have died. draw_curves: draws a
    run's log into its folder; None draws nothing.
    """

    device: str = "auto"
    resume: bool = False
    tensorboard: bool = False
    checkpoint_seconds: float = 300.0
    patience: float = PATIENCE
    draw_curves: DrawCurves | None = None

    def accelerator(self, precision: Precision, accumulate: int, batch: int) -> Accelerator:
        """Take the device and, under a launcher, the processes there are.

        Raises DataError if a batch cannot be divided evenly.
        """
        accelerator = Accelerator(
            cpu=self.device == "cpu",
            mixed_precision=resolve_precision(precision, self.device),
            gradient_accumulation_steps=accumulate,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
        )
        parts = accelerator.num_processes * accumulate
        if batch % parts:
            raise DataError(
                f"A batch of {batch} cannot be divided evenly among {accelerator.num_processes} processes "
                f"with {accumulate} parts each. Make --batch a multiple of {parts}."
            )
        return accelerator


def resolve_precision(precision: Precision, device: str) -> Precision:
    """Choose what "auto" means here: bf16 on GPUs and on CPUs that multiply it, else full precision."""
    if precision != "auto":
        return precision
    if device == "cpu" or not torch.cuda.is_available():
        return "bf16" if multiplies_bf16() else "no"
    return "bf16" if torch.cuda.is_bf16_supported() else "no"


def set_up(
    config: PretrainConfig | TrainConfig, out: Path, machine: Machine
) -> tuple[Accelerator, RunFolder, Checkpoint | None]:
    """Take the device, open the run's folder, and read the checkpoint to go on from, if that is asked for.

    Raises DataError or WeightsError if the folder holds another run, or none to resume; writes nothing.
    """
    accelerator = machine.accelerator(config.precision, config.accumulate, config.batch)
    run = RunFolder(
        out,
        config.model_dump_json(indent=2),
        resume=machine.resume,
        is_main=accelerator.is_main_process,
        tensorboard=machine.tensorboard,
        draw_curves=machine.draw_curves,
    )
    return accelerator, run, read_checkpoint(run.checkpoint, run.recipe) if machine.resume else None


def leave_processes() -> None:
    """End the work with other processes, if there are any; nothing that trained may be in use any more.

    Without it a thread that carried their messages may still let go of the last one while Python shuts down,
    and a process that did all its work then dies by SIGABRT, and its launcher with it.
    """
    gc.collect()  # of what holds the group and is a part of a cycle
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Phase(NamedTuple):
    """One stretch of training, with one optimiser.

    number: counts a run's phases from 0. rate: the factor of all learning rates, by step. clip: largest norm
    of the gradient. ema: decay of the weights' moving average; None: the weights themselves are the result.
    validate_every: steps between validations, 0 for one at the end only. shows: names what a step shows, for
    whoever looks into a run that broke.
    """

    number: int
    steps: int
    rate: Callable[[int], float]
    seed: int
    machine: Machine
    clip: float | None = None
    ema: float | None = None
    validate_every: int = 0
    shows: Callable[[int], Any] = str


class Step(NamedTuple):
    """What came of a step: its losses, and whether it was taken, or left out: its gradient was not finite.

    broken: names of the weights whose gradients were not finite.
    """

    losses: dict[str, Tensor]
    is_taken: bool
    broken: tuple[str, ...] = ()


def fit(training: "Training", batches: Batches, run: RunFolder, validate: Validate) -> nn.Module:
    """Train one phase from where it stands, and return the learner whose weights are the result.

    validate: scores a learner; called on the main process only.
    Raises DataError if losses are no longer finite; what they were of is written into the run's folder.
    """
    phase, is_main = training.phase, training.accelerator.is_main_process
    last_saved = time.monotonic()
    losses, left_out = _Losses(training.step), 0
    with (
        progress("Training", "steps", training.step) as on_progress,
        watch(training.accelerator.num_processes, phase.machine.patience) as watchdog,
    ):
        for parts in batches(training.step):
            taken = training.take_step(parts)
            losses.add(taken)
            watchdog.step()
            if not taken.is_taken:
                left_out += 1
                run.log_left_out(_left_out(training, taken))
            if training.num_left_out == GIVE_UP_AFTER:
                raise DataError(_broken(training, run))
            step, is_last = training.step, training.step == phase.steps
            if step % LOG_EVERY == 0 or is_last:
                entry = losses.entry(training)
                losses = _Losses(step)
                run.log(entry)
                if is_main:
                    note = f"loss {sum(entry['losses'].values()):.3f}"
                    if left_out:
                        note += f", {left_out} steps left out (see {LEFT_OUT} in the run's folder)"
                    on_progress(step, phase.steps, note)
            if is_last or (phase.validate_every and step % phase.validate_every == 0):
                with watchdog.paused():
                    if is_main:
                        scores = validate(training.result)
                        run.log({"phase": phase.number, "step": step, "validation": scores})
                    training.accelerator.wait_for_everyone()
                losses.start_clock()
            is_due = (
                time.monotonic() - last_saved > phase.machine.checkpoint_seconds and step % LOG_EVERY == 0
            )
            if is_main and (is_last or is_due):
                save_checkpoint(training.checkpoint(run.recipe), run.checkpoint)
                last_saved = time.monotonic()
            if is_last:
                break
    training.accelerator.wait_for_everyone()
    return training.result


class Training:
    """A learner and its optimiser, on the way through one phase.

    learner: called with a part of a batch, it gives its losses by name. frozen: prefixes of what it holds but
    never learns, and checkpoints leave out. checkpoint: where to go on, if it is of this phase.
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
        self.num_left_out = 0  # in a row
        self.base_rates = [float(group["lr"]) for group in optimiser.param_groups]
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
        """The learner whose weights count: their moving average, if there is one."""
        return self.learner if self.average is None else self.average.module

    def take_step(self, parts: list[Any]) -> Step:
        """Learn from one batch; its losses are means over the parts, not yet over processes.

        Where the gradient is not finite nothing is learnt, on any process: it is the sum of all of theirs.
        """
        torch.manual_seed(
            _seed(self.phase.seed, self.phase.number, self.step, self.accelerator.process_index)
        )
        for group, rate in zip(self.optimiser.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * self.phase.rate(self.step)
        self.prepared.train()
        buffers = [buffer.clone() for buffer in self.learner.buffers()]  # BatchNorm's would keep a NaN
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
        self.num_left_out = 0 if is_taken else self.num_left_out + 1
        self.step += 1
        return Step(losses, is_taken, broken)

    def _clip(self) -> bool:
        """Clip the gradient, if that is asked for; tell whether it is finite."""
        clip = math.inf if self.phase.clip is None else self.phase.clip
        norm = self.accelerator.clip_grad_norm_(self.prepared.parameters(), clip)
        assert norm is not None
        # In fp16 a gradient that overflows is nothing unusual: the scaler leaves the step out by itself.
        return self.accelerator.scaler is not None or math.isfinite(norm)

    def _broken_gradients(self) -> tuple[str, ...]:
        """Name the weights whose gradients are not finite."""
        given = ((name, weight.grad) for name, weight in self.learner.named_parameters())
        return tuple(name for name, grad in given if grad is not None and not grad.isfinite().all())

    def checkpoint(self, recipe: str) -> Checkpoint:
        """Give the state after the last step."""
        average = None if self.average is None else self._learned(self.average, "module.")
        return Checkpoint(
            self.phase.number,
            self.step,
            self._learned(self.learner),
            self.optimiser.state_dict(),
            average,
            recipe,
        )

    def _learned(self, module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
        left_out = tuple(prefix + name for name in self.frozen)
        return {key: value for key, value in module.state_dict().items() if not key.startswith(left_out)}


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

    def entry(self, training: Training) -> dict[str, Any]:
        """Make a line of the log; the same on every process."""
        count = training.step - self.first_step
        losses: dict[str, float] = {}
        if self.sums:
            values = torch.stack(list(self.sums.values())) / self.num_taken
            means = training.accelerator.reduce(values, reduction="mean").tolist()
            losses = dict(zip(self.sums, means, strict=True))
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken:
            raise DataError(
                f"The loss '{broken[0]}' is {losses[broken[0]]} at step {training.step}. Lower the learning "
                "rate (--lr), or train at full precision (--precision no)."
            )
        return {
            "phase": training.phase.number,
            "step": training.step,
            "lr": training.optimiser.param_groups[0]["lr"],
            "seconds_per_step": round((time.monotonic() - self.start) / count, 3),
            "losses": losses,
            **({"left_out": count - self.num_taken} if count > self.num_taken else {}),
        }


def _left_out(training: Training, step: Step) -> dict[str, Any]:
    """Say of a step that was left out what it showed, its losses, and which gradients were not finite."""
    number = training.step - 1
    return {
        "phase": training.phase.number,
        "step": number,
        "losses": {name: repr(value.item()) for name, value in step.losses.items()},
        "not_finite": list(step.broken),
        "shows": training.phase.shows(number),
    }


def _broken(training: Training, run: RunFolder) -> str:
    """Say that the last steps were all left out, and what to do."""
    return (
        f"The gradient was not finite in {GIVE_UP_AFTER} steps in a row, the last of them step "
        f"{training.step}. Lower the learning rate (--lr), or train at full precision (--precision no); "
        f"--resume goes on from the last checkpoint. What the steps showed is in {run.path / LEFT_OUT}."
    )


def _ema(decay: float) -> Any:
    return get_ema_multi_avg_fn(decay)


def _seed(*key: int) -> int:
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7], "big")
