"""Trainings that are killed at any moment, and go on."""

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

from benchmarks.torture.alone import alone
from benchmarks.torture.rows import CannotRun, Found, Row
from benchmarks.torture.trainings import (
    SMALL_STEPS,
    TINY,
    Ended,
    Material,
    fork,
    run,
    sha256,
    wait,
    write_material,
)
from kshot.data.folder import Folder
from kshot.io.files import TEMPORARY
from kshot.methods.hub import WEIGHTS_FILE
from kshot.training.meta_train import train
from kshot.training.pretrain import pretrain
from kshot.training.recipes import PretrainPhase, SizeStage, lite
from kshot.training.run_folder import CHECKPOINT, LOG
from kshot.training.trainer import RuntimeArgs

WHILE_WRITING = 5
"""Of so many points, one lies within the writing of a file."""

MOST_FILES = 15
"""Files, about, that a training writes anew or for the first time."""

Training = Callable[[Path, bool], None]
"""Trains into a folder; whether to go on there."""


class Point(NamedTuple):
    """What came of a training that was killed. is_same: in the end it was as one that never was."""

    had_checkpoint: bool
    was_writing: bool
    is_same: bool


def killed_trainings(folder: Path, count: int = 50) -> Found:
    """Kill two kinds of trainings at random moments, let them go on, and compare what they end with."""
    if not hasattr(os, "fork"):
        raise CannotRun("processes are copied here by fork, which only Unix has")
    material = write_material(folder)
    with ThreadPoolExecutor(2) as pool:  # which wait for a process each
        halves = pool.map(partial(alone, _points, material), (False, True), (count // 2,) * 2)
        points = [point for half in halves for point in half]
    same = sum(point.is_same for point in points)
    early = sum(not point.had_checkpoint for point in points)
    writing = sum(point.was_writing for point in points)
    figure = (
        f"{same}/{len(points)} end with the same sha256; {early} were killed before their first checkpoint, "
        f"{writing} while a file was written"
    )
    return Found(figure, same == count == len(points))


def _points(material: Material, of_two_pass: bool, count: int) -> list[Point]:
    """Run a training once without a stop, then kill others of its kind. Runs in a process of its own."""
    torch.set_num_threads(1)  # others would not be in a copy of this process
    Image.init()
    random, folder = np.random.default_rng(of_two_pass), material.data.parent / f"{of_two_pass}"
    folder.mkdir()
    training, whole = partial(_pretrain, material), folder / "base"
    seconds = _run_whole(training, whole)
    if of_two_pass:
        training, whole = partial(_train, material, whole), folder / "two-pass"
        seconds = _run_whole(training, whole)
    points = []
    for number in range(count):
        out = folder / str(number)
        if number % WHILE_WRITING:
            _kill_after(training, out, seconds * random.random())
        else:
            _kill_while_writing(training, out, int(random.integers(1, MOST_FILES)))
        had_checkpoint, was_writing = (out / CHECKPOINT).exists(), bool(_leftovers(out))
        is_done = _go_on(training, out).status == 0
        points.append(Point(had_checkpoint, was_writing, is_done and _are_alike(out, whole)))
    return points


def _run_whole(training: Training, out: Path) -> float:
    """Run a training without a stop; give the seconds that it takes."""
    start = time.monotonic()
    done = run(partial(training, out, False), out.with_suffix(".txt"))
    assert done.status == 0, done.stderr
    return time.monotonic() - start


def _kill_after(training: Training, out: Path, seconds: float) -> None:
    """Start a training and kill it after some seconds; after fewer, if it was done by then."""
    told = out.with_suffix(".txt")
    while wait(fork(partial(training, out, False), told), told, seconds).status == 0:
        shutil.rmtree(out, ignore_errors=True)
        seconds *= 0.8


def _kill_while_writing(training: Training, out: Path, number: int) -> None:
    """Start a training and kill it as soon as it has begun to write so many files; fewer, if it has not."""
    told = out.with_suffix(".txt")
    while True:
        child = fork(partial(training, out, False), told)
        seen: set[str] = set()
        while len(seen) < number and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            seen |= _leftovers(out)
            time.sleep(0.0005)
        if wait(child, told, 0).status == -signal.SIGKILL:
            return
        shutil.rmtree(out, ignore_errors=True)
        number = max(1, number - 1)


def _go_on(training: Training, out: Path) -> Ended:
    """Resume a training; where there is nothing to resume, give the command again, as that says."""
    told = out.with_suffix(".txt")
    ended = run(partial(training, out, True), told)
    if "Leave out --resume" in ended.stderr:
        ended = run(partial(training, out, False), told)
    if ended.status:
        print(ended.stderr, file=sys.stderr)
    return ended


def _are_alike(run: Path, whole: Path) -> bool:
    """Whether two runs end with the same weights and have logged the same, and nothing else lies about."""
    same_weights = sha256(run / WEIGHTS_FILE) == sha256(whole / WEIGHTS_FILE)
    return same_weights and _logged(run) == _logged(whole) and not _leftovers(run)


def _logged(run: Path) -> list[tuple[Any, ...]]:
    entries = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return [(one["step"], one.get("losses"), one.get("validation")) for one in entries]


def _leftovers(run: Path) -> set[str]:
    """Name the files that are not whole."""
    return {path.name for path in run.glob(f"{TEMPORARY}*")}


def _pretrain(material: Material, out: Path, resume: bool) -> None:
    """Train a base learner: a phase for all of it, and one for its head."""
    config = lite(TINY).pretrain.model_copy(
        update={
            "data": str(material.data),
            "exclude_holdout": False,
            "crop": 33,
            "num_val_images": 1,
            "batch": 2,
            "precision": "no",
            "phases": (PretrainPhase(epochs=4, output_stride=16), PretrainPhase(epochs=2, learns="head")),
        }
    )
    machine = RuntimeArgs("cpu", resume, checkpoint_seconds=0)
    pretrain(config, Folder(material.data), out, machine, backbone_weights=material.weights)


def _train(material: Material, base_learner: Path, out: Path, resume: bool) -> None:
    """Train a two-pass."""
    config = lite(TINY).train.model_copy(
        update={
            "data": str(material.data),
            "channels": (4, 4, 4),
            "sizes": (SizeStage(steps=20, image_size=33),),
            "batch": 2,
            "lr": SMALL_STEPS,
            "precision": "no",
            "select_on": None,
            "validate_every": 10,
            "validate_episodes": 1,
        }
    )
    train(
        config,
        Folder(material.data),
        out,
        RuntimeArgs("cpu", resume, checkpoint_seconds=0),
        cache=out.with_name("features"),
        cache_gb=1.0,
        base_learners=[base_learner],
        backbone_weights=material.weights,
    )


ROWS = (
    Row(
        "kills",
        "`kill -9` at a random moment of `kshot pretrain` and `kshot train`, then --resume",
        "50 points: the same sha256 as a run that was never stopped",
        killed_trainings,
    ),
)
