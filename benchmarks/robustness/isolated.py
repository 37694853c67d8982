"""Call a function in a process of its own: it may crash there, and its memory can be told."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from benchmarks.robustness.rows import CannotRun

Result = TypeVar("Result")

STATUS = "/proc/{}/status"


class Crashed(Exception):  # noqa: N818  the row says what that means
    """The process ended by itself, as by a fault in a decoder."""


def alone(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a module's function in a new process. Raises what it raises, and Crashed if the process dies."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_say_nothing) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise Crashed("the process died") from error


def memory(process: int | str = "self") -> tuple[float, float]:
    """Give what a process holds now, and what it held at its peak, in MB. Raises CannotRun off Linux."""
    path = Path(STATUS.format(process))
    if not path.exists():
        raise CannotRun("memory is read from /proc, which only Linux has")
    status = dict(line.split(":", 1) for line in path.read_text().splitlines())
    now, peak = (int(status[name].split()[0]) / 1000 for name in ("VmRSS", "VmHWM"))
    return now, peak


def _say_nothing() -> None:
    # Decoders write to stderr themselves, a line for each file that they don't like.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
