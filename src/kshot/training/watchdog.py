"""Processes that train together must not wait for ever for one that died or hangs.

Each watches only itself: where one no longer answers, all others stand still within a step.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 120.0
"""Seconds without a step after which a process ends itself."""

SLOWEST = 10
"""How many times the longest step so far a step may take, if that is more."""

FIRST = 10
"""How many times the patience the first step may take: much is read, built or compiled in it."""


class Watchdog:
    """Ends this process, with exit status 1, if it takes no step for long. Made by `watch`."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._longest: float | None = None
        self._last = time.monotonic()
        self._is_paused = False
        self._ended = threading.Event()

    def step(self) -> None:
        """Tell that a step was taken."""
        now = time.monotonic()
        self._longest = max(self._longest or 0.0, now - self._last)
        self._last = now

    @property
    def limit(self) -> float:
        """Seconds that a step may take."""
        if self._longest is None:
            return FIRST * self.patience
        return max(self.patience, SLOWEST * self._longest)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Allow what takes its time, a validation say."""
        self._is_paused = True
        try:
            yield
        finally:
            self._last, self._is_paused = time.monotonic(), False

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()

    def run(self) -> None:
        """Look at the clock until `end` is called; in a thread of its own."""
        while not self._ended.wait(min(1.0, self.patience / 4)):
            if not self._is_paused and time.monotonic() - self._last > self.limit:
                print(
                    f"No step was taken for {self.limit:.0f} seconds: another process died or hangs, or this "
                    "one does. It ends itself; --resume goes on from the last checkpoint.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)  # the main thread waits for the others, and nothing can be raised in it


@contextmanager
def watch(num_processes: int, patience: float) -> Iterator[Watchdog]:
    """Watch this process while it trains with others; alone it may take all the time it wants."""
    watchdog = Watchdog(patience)
    thread = threading.Thread(target=watchdog.run, name="watchdog", daemon=True)
    if num_processes > 1:
        thread.start()
    try:
        yield watchdog
    finally:
        watchdog.end()
