"""Training runs that are killed at a random moment and resumed."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.robustness.isolated import run_isolated
from benchmarks.robustness.rows import CannotRun, Outcome, Row
from benchmarks.robustness.training_runs import (
    LEARNING_RATE,
    TINY,
    ProcessResult,
    TrainingInputs,
    fork,
    run,
    sha256,
    wait,
    write_training_inputs,
)
from kshot.data.folder import Folder
from kshot.io.files import TEMPORARY_PREFIX
from kshot.methods.hub import WEIGHTS_FILE
from kshot.training.meta_train import train
from kshot.training.pretraining import pretrain
from kshot.training.recipes import PretrainPhase, RuntimeArgs, SizeStage, lite
from kshot.training.run_folder import CHECKPOINT, LOG

WHILE_WRITING = 5
"""One of this many kills happens while a file is written."""

MAX_FILES = 15
"""Approximate number of file writes of a training run."""

Training = Callable[[Path, bool], None]
"""Trains into a folder; the flag is whether to resume."""


class KilledRun(NamedTuple):
    """The outcome of a killed and resumed run. is_same: its result equals that of an uninterrupted run."""

    had_checkpoint: bool
    was_writing: bool
    is_same: bool


def killed_trainings(folder: Path, count: int = 50) -> Outcome:
    """Kill both kinds of training at random moments, resume them, and compare the results."""
    if not hasattr(os, "fork"):
        raise CannotRun("processes are forked, which needs Unix")
    inputs = write_training_inputs(folder)
    with ThreadPoolExecutor(2) as pool:  # each thread waits for a child process
        halves = pool.map(partial(run_isolated, _killed_runs, inputs), (False, True), (count // 2,) * 2)
        runs = [run for half in halves for run in half]
    same = sum(run.is_same for run in runs)
    early = sum(not run.had_checkpoint for run in runs)
    writing = sum(run.was_writing for run in runs)
    figure = (
        f"{same}/{len(runs)} end with the same SHA-256; {early} were killed before their first checkpoint, "
        f"{writing} while a file was written"
    )
    return Outcome(figure, same == count == len(runs))


def _killed_runs(inputs: TrainingInputs, of_two_pass: bool, count: int) -> list[KilledRun]:
    """Train once without interruption, then kill further runs. Called in its own process."""
    torch.set_num_threads(1)  # other threads would be missing in a fork
    Image.init()
    random, folder = np.random.default_rng(of_two_pass), inputs.data.parent / f"{of_two_pass}"
    folder.mkdir()
    training, whole = partial(_pretrain, inputs), folder / "base"
    seconds = _run_whole(training, whole)
    if of_two_pass:
        training, whole = partial(_train, inputs, whole), folder / "two-pass"
        seconds = _run_whole(training, whole)
    runs = []
    for number in range(count):
        out = folder / str(number)
        if number % WHILE_WRITING:
            _kill_after(training, out, seconds * random.random())
        else:
            _kill_while_writing(training, out, int(random.integers(1, MAX_FILES)))
        had_checkpoint, was_writing = (out / CHECKPOINT).exists(), bool(_leftovers(out))
        is_done = _resume(training, out).status == 0
        runs.append(KilledRun(had_checkpoint, was_writing, is_done and _are_equal(out, whole)))
    return runs


def _run_whole(training: Training, out: Path) -> float:
    """Train without interruption; return the seconds."""
    start = time.monotonic()
    done = run(partial(training, out, False), out.with_suffix(".txt"))
    assert done.status == 0, done.stderr
    return time.monotonic() - start


def _kill_after(training: Training, out: Path, seconds: float) -> None:
    """Start training and kill it after `seconds`; retry with fewer if it finished before."""
    log = out.with_suffix(".txt")
    while wait(fork(partial(training, out, False), log), log, seconds).status == 0:
        shutil.rmtree(out, ignore_errors=True)
        seconds *= 0.8


def _kill_while_writing(training: Training, out: Path, number: int) -> None:
    """Start training and kill it when it writes its file `number`; retry with fewer if it finished."""
    log = out.with_suffix(".txt")
    while True:
        child = fork(partial(training, out, False), log)
        seen: set[str] = set()
        while len(seen) < number and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            seen |= _leftovers(out)
            time.sleep(0.0005)
        if wait(child, log, 0).status == -signal.SIGKILL:
            return
        shutil.rmtree(out, ignore_errors=True)
        number = max(1, number - 1)


def _resume(training: Training, out: Path) -> ProcessResult:
    """Resume training; without a checkpoint, start again without --resume, as the error message says."""
    log = out.with_suffix(".txt")
    result = run(partial(training, out, True), log)
    if "Leave out --resume" in result.stderr:
        result = run(partial(training, out, False), log)
    if result.status:
        print(result.stderr, file=sys.stderr)
    return result


def _are_equal(run: Path, whole: Path) -> bool:
    """Return whether two runs have the same weights and logs, and no temporary files are left."""
    same_weights = sha256(run / WEIGHTS_FILE) == sha256(whole / WEIGHTS_FILE)
    return same_weights and _logged(run) == _logged(whole) and not _leftovers(run)


def _logged(run: Path) -> list[tuple[Any, ...]]:
    entries = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return [(one["step"], one.get("losses"), one.get("validation")) for one in entries]


def _leftovers(run: Path) -> set[str]:
    """Return the names of incomplete files."""
    return {path.name for path in run.glob(f"{TEMPORARY_PREFIX}*")}


def _pretrain(inputs: TrainingInputs, out: Path, resume: bool) -> None:
    """Train a base learner: one phase for the whole network, one for its head."""
    config = lite(TINY).pretrain.model_copy(
        update={
            "data": str(inputs.data),
            "exclude_holdout": False,
            "crop": 33,
            "num_val_images": 1,
            "batch": 2,
            "precision": "fp32",
            "phases": (PretrainPhase(epochs=4, output_stride=16), PretrainPhase(epochs=2, learns="head")),
        }
    )
    machine = RuntimeArgs(device="cpu", resume=resume, checkpoint_seconds=0)
    pretrain(config, Folder(inputs.data), out, machine, backbone_weights=inputs.weights)


def _train(inputs: TrainingInputs, base_learner: Path, out: Path, resume: bool) -> None:
    """Train a two-pass model."""
    config = lite(TINY).train.model_copy(
        update={
            "data": str(inputs.data),
            "channels": (4, 4, 4),
            "sizes": (SizeStage(steps=20, image_size=33),),
            "batch": 2,
            "lr": LEARNING_RATE,
            "precision": "fp32",
            "select_on": None,
            "validate_every": 10,
            "validate_episodes": 1,
        }
    )
    train(
        config,
        Folder(inputs.data),
        out,
        RuntimeArgs(
            device="cpu", resume=resume, checkpoint_seconds=0, cache=out.with_name("features"), cache_gb=1.0
        ),
        base_learners=[base_learner],
        backbone_weights=inputs.weights,
    )


ROWS = (
    Row(
        "kills",
        "`kill -9` at a random moment of `kshot pretrain` or `kshot train`, then --resume",
        "50 kills: same SHA-256 as an uninterrupted run",
        killed_trainings,
    ),
)
