"""Trainings of seconds: drawn photographs, a tiny backbone, and processes to run them in."""

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

from benchmarks.torture.samples import scene
from kshot.errors import KshotError
from kshot.models.backbones import Backbone

TINY = "test_resnet"
"""timm's smallest ResNet."""

CLASSES = ("ant", "bee", "cow")

SMALL_STEPS = 1e-4
"""Learning rate of runs that are compared: larger steps would drive rounding errors apart."""

RUNNING = 300.0
"""Seconds after which a process that was started hangs."""


class Material(NamedTuple):
    """What trainings are made of: a folder with photographs and labels, and a backbone's weights."""

    data: Path
    weights: Path

    def options(self, out: Path) -> list[str]:
        """Give what both trainings are asked for."""
        place = ["--data", str(self.data), "--out", str(out), "--batch", "4", "--device", "cpu"]
        network = ["--backbone", TINY, "--backbone-weights", str(self.weights), "--precision", "no"]
        return [*place, *network, "--checkpoint-seconds", "0"]

    def pretrain(self, out: Path, *more: str, epochs: tuple[float, float] = (9, 3)) -> list[str]:
        """Give the arguments of `kshot pretrain`."""
        short = [
            "--epochs",
            str(epochs[0]),
            "--epochs",
            str(epochs[1]),
            "--crop",
            "33",
            "--num-val-images",
            "1",
        ]
        return ["pretrain", *self.options(out), "--no-exclude-holdout", *short, *more]

    def train(self, out: Path, *more: str, steps: int = 20) -> list[str]:
        """Give the arguments of `kshot train`; its features are kept beside the run."""
        short = ["--stage", f"{steps}@33", "--validate-every", str(steps), "--validate-episodes", "1"]
        kept = ["--cache", str(out.parent / "features"), "--lr", str(SMALL_STEPS), "--select-on", "nothing"]
        return ["train", *self.options(out), *short, *kept, *more]


def write_material(folder: Path, count: int = 12) -> Material:
    """Draw photographs of three classes, and give the backbone random weights."""
    data = folder / "data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    for index in range(count):
        picture, mask = scene(left=6 * index % 75, top=7 * index % 45)
        picture.save(data / "images" / f"{index}.png")
        labels = mask * np.uint8(1 + index % len(CLASSES))
        Image.fromarray(labels).save(data / "masks" / f"{index}.png")
    (data / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    torch.manual_seed(0)
    save_file(Backbone(TINY).trunk.state_dict(), folder / "backbone.safetensors")
    return Material(data, folder / "backbone.safetensors")


def sha256(path: Path) -> str:
    """Give the digest of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Ended(NamedTuple):
    """How a process ended: its exit status, below 0 a signal's number; and what it wrote to stderr."""

    status: int
    stderr: str


def fork(function: Callable[[], object], told: Path) -> int:
    """Call a function in a copy of this process, which has imported all already; give the copy's id.

    told: where it writes its stderr. Fork before anything is trained: the threads that do are not copied.
    """
    child = os.fork()
    if child:
        return child
    status = 70  # of what even the command does not catch
    try:
        for number, path in ((1, Path(os.devnull)), (2, told)):
            with path.open("wb") as file:
                os.dup2(file.fileno(), number)
        try:
            function()
            status = 0
        except KshotError as error:  # as the command ends
            print(f"kshot: {error}", file=sys.stderr)
            status = 2
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(child: int, told: Path, seconds: float = RUNNING) -> Ended:
    """Wait for a process, and kill it if it is not done in so many seconds."""
    end = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)
    return Ended(os.waitstatus_to_exitcode(ended[1]), told.read_text())


def run(function: Callable[[], object], told: Path, seconds: float = RUNNING) -> Ended:
    """Call a function in a copy of this process, and kill that if it is not done in so many seconds."""
    return wait(fork(function, told), told, seconds)


def until(is_so: Callable[[], bool], seconds: float = RUNNING) -> bool:
    """Wait until something is so; False if it is not within so many seconds."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
