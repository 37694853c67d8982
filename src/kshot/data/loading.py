"""Samples that worker processes load ahead, in their order, with errors that fit in one line."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from kshot.errors import DataError, KshotError


def read_ahead(
    dataset: Dataset[Any],
    num_workers: int,
    name_of: Callable[[int], str],
    *,
    batches: Iterable[list[int]] | None = None,
) -> Iterator[Any]:
    """Yield samples in their order, loaded by `num_workers` processes.

    name_of: returns the name of the sample at a position, for messages. batches: positions of the samples
    that are stacked; None: all samples, one by one.
    Raises what loading a sample raises, and DataError if a worker dies.
    """
    if batches is None:
        batches = [[position] for position in range(len(dataset))]  # type: ignore[arg-type]
        collate = _only
    else:
        batches, collate = list(batches), _stack
    loader = DataLoader(_Samples(dataset), batch_sampler=batches, num_workers=num_workers, collate_fn=collate)
    samples = _start(loader)
    for batch in batches:
        try:
            sample = next(samples)
        except (RuntimeError, OSError, EOFError) as error:
            if not num_workers or "Caught" in str(error):  # torch's word for what a sample raised
                raise
            raise DataError(
                f"A DataLoader worker died while loading {name_of(batch[0])}, or one of the next samples. If "
                "they load with --workers 0, the machine ran out of memory: use fewer workers."
            ) from error
        if isinstance(sample, KshotError):
            raise sample
        yield sample


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers without torch's signal handler.

    The handler raises a worker's death in whatever code runs, while it writes a file for instance. Without
    it the death is raised where the next sample is waited for.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, handler)


class _Samples(Dataset[Any]):
    """Returns a KshotError instead of raising it: torch would add the worker's traceback to its message."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, position: int) -> Any:
        try:
            return self.dataset[position]
        except KshotError as error:
            return error


def _only(samples: list[Any]) -> Any:
    return samples[0]


def _stack(samples: list[Any]) -> Any:
    errors = [sample for sample in samples if isinstance(sample, KshotError)]
    return errors[0] if errors else default_collate(samples)
