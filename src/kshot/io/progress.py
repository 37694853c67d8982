"""One way to say how far something is: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 30.0


class OnProgress(Protocol):
    """Called with what is done and all there is to do; the note says how it goes."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Take the numbers and the note."""


def make_bar(console: Console, *, transient: bool = False) -> Progress:
    """Make a bar with what is done and the time left; it shows on a terminal only.

    transient: whether it goes away at the end.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=transient, disable=not console.is_terminal)


@contextmanager
def progress(verb: str, things: str, done_before: int = 0) -> Iterator["OnProgress"]:
    """Give a function to call with the number of things done, of all things, and a note; writes to stderr.

    done_before: things that were done already, in no time of this run.
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
