"""Call functions in processes of their own, forked from one that has imported kshot: each starts at once."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "kshot.cli.main",
        "kshot.training.pretrain",
        "kshot.training.meta_train",
        "kshot.io.geotiff",
        "kshot.io.nifti",
    ]
)

TIMEOUT = 600.0
"""Seconds after which a process counts as hanging; only reached if a test fails."""


class Ended(NamedTuple):
    """The exit status of a process (negative: the signal that ended it) and its stderr."""

    status: int
    stderr: str


def run_alone(function: Callable, *arguments, log: Path) -> Ended:
    """Call a function of a test module in a new process. log: file for its stderr."""
    return _wait([_start({}, function, arguments, log)])[0]


def run_together(function: Callable, *arguments, folder: Path, count: int = 2) -> list[Ended]:
    """Call a function in processes that train together, as a launcher does. folder: for their stderr."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return _wait(
        [
            _start(
                group | {"RANK": rank, "LOCAL_RANK": rank}, function, arguments, folder / f"stderr{rank}.txt"
            )
            for rank in range(count)
        ]
    )


def _start(environment, function, arguments, log):
    process = FORKED.Process(
        target=_call, args=(environment, torch.get_num_threads(), function, arguments, log)
    )
    process.start()
    return process, log


def _call(environment, num_threads, function, arguments, log):
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.fsync = lambda descriptor: None  # as in conftest.py
    torch.set_num_threads(num_threads)  # as in the test's process, so that both compute the same numbers
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
    function(*arguments)


def _wait(started):
    ended = []
    for process, log in started:
        process.join(TIMEOUT)
        if process.is_alive():
            for other, _ in started:
                other.kill()
            raise TimeoutError(f"A process did not end within {TIMEOUT:.0f} s: {log.read_text()}")
        ended.append(Ended(process.exitcode, log.read_text() if log.exists() else ""))
    return ended
