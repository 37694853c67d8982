"""Training runs of a few seconds: drawn images, a tiny backbone, and child processes to run in."""

import hashlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.harness import settings
from benchmarks.robustness.samples import scene
from kshot.errors import KshotError
from kshot.models.backbones import Backbone

TINY = "test_resnet"
"""timm's smallest ResNet."""

CLASSES = ("ant", "bee", "cow")

LEARNING_RATE = 1e-4
"""For runs that are compared; a larger rate would amplify rounding errors."""

TIMEOUT = 300.0
"""Seconds after which a child process counts as hanging."""


class TrainingInputs(NamedTuple):
    """The inputs of training: a folder with images and masks, and backbone weights."""

    data: Path
    weights: Path

    def options(self, out: Path) -> list[str]:
        """Return the options that both training commands share."""
        inputs = ["--data", str(self.data), "--backbone-weights", str(self.weights)]
        small = settings(f"backbone={TINY}", "batch=4", "precision=fp32", "checkpoint_seconds=0")
        return [*inputs, *small, "--out", str(out), "--device", "cpu"]

    def pretrain(self, out: Path, *more: str, epochs: tuple[float, float] = (9, 3)) -> list[str]:
        """Return the arguments of `kshot pretrain`."""
        phases = settings(f"phases.0.epochs={epochs[0]}", f"phases.1.epochs={epochs[1]}")
        short = [*phases, *settings("crop=33", "num_val_images=1")]
        return ["pretrain", *self.options(out), *settings("exclude_holdout=false"), *short, *more]

    def train(self, out: Path, *more: str, steps: int = 20) -> list[str]:
        """Return the arguments of `kshot train`; its feature cache lies beside the run."""
        short = settings(f"sizes={steps}@33", f"validate_every={steps}", "validate_episodes=1")
        other = settings(f"cache={out.parent / 'features'}", f"lr={LEARNING_RATE}", "select_on=null")
        return ["train", *self.options(out), *short, *other, *more]


def write_training_inputs(folder: Path, count: int = 12) -> TrainingInputs:
    """Draw images of three classes and write random backbone weights."""
    data = folder / "data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    for index in range(count):
        image, mask = scene(left=6 * index % 75, top=7 * index % 45)
        image.save(data / "images" / f"{index}.png")
        labels = mask * np.uint8(1 + index % len(CLASSES))
        Image.fromarray(labels).save(data / "masks" / f"{index}.png")
    (data / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    torch.manual_seed(0)
    save_file(Backbone(TINY).trunk.state_dict(), folder / "backbone.safetensors")
    return TrainingInputs(data, folder / "backbone.safetensors")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ProcessResult(NamedTuple):
    """The exit status of a process (negative: the signal that ended it) and its stderr."""

    status: int
    stderr: str


def fork(function: Callable[[], object], log: Path) -> int:
    """Call a function in a fork of this process, where everything is imported already; return the child's id.

    log: file for its stderr. Fork before training: threads are not copied.
    """
    child = os.fork()
    if child:
        return child
    status = 70  # an error that the command does not catch either
    try:
        for number, path in ((1, Path(os.devnull)), (2, log)):
            with path.open("wb") as file:
                os.dup2(file.fileno(), number)
        try:
            function()
            status = 0
        except KshotError as error:  # as the command does
            print(f"kshot: {error}", file=sys.stderr)
            status = 2
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(child: int, log: Path, seconds: float = TIMEOUT) -> ProcessResult:
    """Wait for a child process; kill it after `seconds`."""
    end = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    return ProcessResult(os.waitstatus_to_exitcode(ended[1]), log.read_text())


def run(function: Callable[[], object], log: Path, seconds: float = TIMEOUT) -> ProcessResult:
    """Call a function in a fork of this process; kill it after `seconds`."""
    return wait(fork(function, log), log, seconds)


def wait_for(condition: Callable[[], bool], seconds: float = TIMEOUT) -> bool:
    """Wait for a condition; return False if it does not hold within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
