"""End processes that train together if one of them dies or hangs, instead of waiting forever.

Each process watches only itself: if one stops, all others stop within a step. A time limit of the process
group would not do: it never ends the process that hangs, and has to be longer than a validation.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds without a step after which a process ends itself."""

SLOWEST = 10
"""Factor of the longest step so far that a step may take, if that is longer than the patience."""

FIRST = 10
"""Factor of the patience that the first step may take, which loads, builds or compiles much."""


class Watchdog:
    """Ends this process with exit status 1 if it takes no step for too long. Created by `watch`."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._longest: float | None = None
        self._last = time.monotonic()
        self._is_paused = False
        self._ended = threading.Event()

    def step(self) -> None:
        """Record that a step was taken."""
        now = time.monotonic()
        self._longest = max(self._longest or 0.0, now - self._last)
        self._last = now

    @property
    def limit(self) -> float:
        """Largest number of seconds for a step."""
        if self._longest is None:
            return FIRST * self.patience
        return max(self.patience, SLOWEST * self._longest)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Allow any time for a block, such as a validation."""
        self._is_paused = True
        try:
            yield
        finally:
            self._last, self._is_paused = time.monotonic(), False

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def run(self) -> None:
        """Check the clock until `end` is called; runs in its own thread."""
        while not self._ended.wait(min(1.0, self.patience / 4)):
            if not self._is_paused and time.monotonic() - self._last > self.limit:
                logger.error(
                    "No step was taken for %.0f seconds: another process died or hangs, or this one hangs. "
                    "This process ends now; --resume continues from the last checkpoint.",
                    self.limit,
                )
                os._exit(1)  # the main thread waits in a collective operation, which no exception can end


@contextmanager
def watch(num_processes: int, patience: float) -> Iterator[Watchdog]:
    """Watch this process while it trains with others; a single process has no limit."""
    watchdog = Watchdog(patience)
    thread = threading.Thread(target=watchdog.run, name="watchdog", daemon=True)
    if num_processes > 1:
        thread.start()
    try:
        yield watchdog
    finally:
        watchdog.end()
