"""Processes that read ahead, and what is said if one dies, or if a sample cannot be read."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from kshot.errors import DataError, KshotError

PATIENCE = 1.0
"""Seconds after which a process whose connection broke must have ended, if that was why."""

NO_MORE = object()


def read_ahead(
    dataset: Dataset[Any],
    num_workers: int,
    name_of: Callable[[int], str],
    *,
    batches: Iterable[list[int]] | None = None,
) -> Iterator[Any]:
    """Read samples in their order, by as many processes as one likes.

    name_of: names the sample at a position. batches: positions of samples that are stacked; None: all
    samples, one by one, as they are.
    Raises what reading a sample raises, and DataError if a process dies, which names what it read last.
    """
    told = _Told(dataset, num_workers)
    loader = DataLoader(
        told,
        num_workers=num_workers,
        collate_fn=_as_it_is if batches is None else _stacked,
        worker_init_fn=told.begin,
        **({"batch_size": None} if batches is None else {"batch_sampler": batches}),
    )
    samples = iter(loader)
    with _deaths_while_waiting() as waiting:
        try:
            while True:
                try:
                    with waiting():
                        sample = next(samples, NO_MORE)
                except (RuntimeError, OSError, EOFError) as error:  # the last two of a connection that broke
                    if found := told.dead():
                        raise DataError(_obituary(*found, name_of)) from error
                    raise
                if sample is NO_MORE:
                    return
                if isinstance(sample, KshotError):
                    raise sample
                yield sample
        finally:
            if num_workers:
                # Here, where a death is no news any more; else it is done when the loader is let go of.
                samples._shutdown_workers()  # type: ignore[attr-defined]


class _Told(Dataset[Any]):
    """A data set whose readers tell where they are, in memory that they share, and hand errors over whole."""

    def __init__(self, dataset: Dataset[Any], num_workers: int) -> None:
        self.dataset = dataset
        self.places = torch.full((num_workers, 2), -1)  # of each: its process, and a position
        self.places.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, position: int) -> Any:
        worker = get_worker_info()
        if worker is None:
            return self.dataset[position]
        self.places[worker.id] = torch.tensor([os.getpid(), position])
        try:
            return self.dataset[position]
        except KshotError as error:
            return error  # raised here, torch would put a traceback into its text

    def begin(self, number: int) -> None:
        """Tell that a process has begun to read."""
        self.places[number] = torch.tensor([os.getpid(), -1])

    def dead(self) -> tuple[int, int] | None:
        """Give the process that has died, if one has, and what position it read last."""
        end = time.monotonic() + PATIENCE
        while len(self.places):
            for process, position in self.places.tolist():
                if process > 0 and _has_ended(process):
                    return process, position
            if time.monotonic() > end:
                return None
            time.sleep(0.05)
        return None


def _has_ended(process: int) -> bool:
    try:
        return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except (ChildProcessError, AttributeError):  # it was asked for already; there is no such question here
        return hasattr(os, "waitid")


def _obituary(process: int, position: int, name_of: Callable[[int], str]) -> str:
    last = "It had read nothing yet" if position < 0 else f"What it read last is {name_of(position)}"
    return (
        f"A process that reads ahead has died ({process}). {last}. If that can be read without --workers, "
        "memory is short: give fewer."
    )


def _as_it_is(sample: Any) -> Any:
    return sample


def _stacked(samples: list[Any]) -> Any:
    for sample in samples:
        if isinstance(sample, KshotError):
            return sample
    return default_collate(samples)


@contextmanager
def _deaths_while_waiting() -> Iterator[Callable[[], Any]]:
    """Give a block in which torch may raise that a process has died; elsewhere that waits for the next one.

    Torch raises it from a signal, wherever this process is: while it writes a file, say.
    """
    is_waiting, missed = False, list[RuntimeError]()
    theirs = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None

    def heard(number: int, frame: Any) -> None:
        try:
            theirs(number, frame)  # type: ignore[operator, misc]
        except RuntimeError as error:
            if is_waiting:
                raise
            missed.append(error)

    @contextmanager
    def waiting() -> Iterator[None]:
        nonlocal is_waiting
        is_waiting = True
        try:
            if missed:
                raise missed[0]
            yield
        finally:
            is_waiting = False

    if not callable(theirs) or threading.current_thread() is not threading.main_thread():
        yield waiting
        return
    signal.signal(signal.SIGCHLD, heard)
    try:
        yield waiting
    finally:
        signal.signal(signal.SIGCHLD, theirs)
