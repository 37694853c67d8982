"""Processes that read ahead: one that dies, and a sample that cannot be read."""

import os
import signal
import threading
import time

import pytest

from kshot.data.loading import read_ahead
from kshot.errors import DataError, ImageError


class Numbers:
    """Gives numbers; at one of them something happens."""

    def __init__(self, at, happens):
        self.at, self.happens = at, happens

    def __len__(self):
        return 8

    def __getitem__(self, position):
        if position == self.at:
            self.happens()
        return position


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise ImageError("'5.png' cannot be read.")


def hang_up():
    """Die as between two messages: the reader's connection breaks."""
    threading.Timer(0.2, die).start()
    raise ConnectionResetError("Connection reset by peer")


def name(position):
    return f"{position}.png"


@pytest.mark.parametrize("batches", [None, [[0, 1], [2, 3], [4, 5], [6, 7]]])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_samples_come_in_their_order_and_an_error_is_as_it_was(num_workers, batches):
    whole = [
        one.tolist() if batches else one
        for one in read_ahead(Numbers(9, fail), num_workers, name, batches=batches)
    ]
    assert whole == (batches or list(range(8)))
    with pytest.raises(ImageError) as caught:
        list(read_ahead(Numbers(5, fail), num_workers, name, batches=batches))
    assert str(caught.value) == "'5.png' cannot be read."


@pytest.mark.parametrize(("dies", "last"), [(die, "5"), (hang_up, "[5-7]")])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_of_a_process_that_dies_one_line_says_what_it_read_last(num_workers, dies, last):
    said = rf"^A process that reads ahead has died \(\d+\)\. What it read last is {last}\.png\."
    with pytest.raises(DataError, match=said):
        list(read_ahead(Numbers(5, dies), num_workers, name))


def test_a_death_is_told_when_the_next_sample_is_asked_for_and_not_elsewhere():
    samples = read_ahead(Numbers(2, die), 1, name)
    assert next(samples) == 0
    for _ in range(100):  # the signal comes here
        time.sleep(0.01)
    with pytest.raises(DataError, match=r"2\.png"):
        list(samples)
