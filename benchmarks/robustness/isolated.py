"""Call a function in its own process, where it may crash and where its memory can be measured."""

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


class Crashed(Exception):  # noqa: N818  an expected outcome, not an error of the benchmark
    """The process died, for example in a decoder."""


def run_isolated(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a module-level function in a new process. Raises its exception, or Crashed if the process dies."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_silence) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise Crashed("the process died") from error


def memory(process: int | str = "self") -> tuple[float, float]:
    """Return the current and the peak memory of a process in MB. Raises CannotRun except on Linux."""
    path = Path(STATUS.format(process))
    if not path.exists():
        raise CannotRun("memory is read from /proc, which only Linux has")
    status = dict(line.split(":", 1) for line in path.read_text().splitlines())
    now, peak = (int(status[name].split()[0]) / 1000 for name in ("VmRSS", "VmHWM"))
    return now, peak


def _silence() -> None:
    # Some decoders write a line to stderr for each broken file.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
