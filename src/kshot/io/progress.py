"""Report progress: a bar on a terminal, an occasional line elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0


class OnProgress(Protocol):
    """A callback for progress; the note is short text such as the current loss."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` items are finished."""


def make_bar(console: Console, *, transient: bool = False) -> Progress:
    """Return a progress bar with counts and remaining time, shown only on a terminal.

    transient: remove the bar at the end.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


@contextmanager
def progress(verb: str, things: str, done_before: int = 0) -> Iterator["OnProgress"]:
    """Yield a callback that reports progress on stderr.

    done_before: items finished by an earlier run, which do not count for the remaining time.
    """
    console = Console(stderr=True)
    with make_bar(console, transient=True) as bar:
        task = bar.add_task(verb, total=None)
        start = last = time.monotonic()

        def on_progress(done: int, total: int, note: str = "") -> None:
            nonlocal last
            bar.update(task, completed=done, total=total, description=f"{verb} {note}".strip())
            now = time.monotonic()
            if not console.is_terminal and now - last > SECONDS_BETWEEN_LINES:
                last = now
                left = (now - start) / (done - done_before) * (total - done)
                after = f" {note}" if note else ""
                console.print(f"{done}/{total} {things} ({left:.0f} s left){after}", highlight=False)

        yield on_progress
