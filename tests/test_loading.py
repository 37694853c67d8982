"""Samples loaded by workers: one that dies, and a sample that cannot be loaded."""

import os
import signal
import time

import pytest

from kshot.data.loading import read_ahead
from kshot.errors import DataError, ImageError


class Numbers:
    """Returns numbers; at one of them something happens."""

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


def fail_otherwise():
    raise RuntimeError("Something else.")


def name(position):
    return f"{position}.png"


@pytest.mark.parametrize("batches", [None, [[0, 1], [2, 3], [4, 5], [6, 7]]])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_samples_come_in_their_order_and_an_error_is_as_it_was(num_workers, batches):
    samples = [
        one.tolist() if batches else one
        for one in read_ahead(Numbers(9, fail), num_workers, name, batches=batches)
    ]
    assert samples == (batches or list(range(8)))
    with pytest.raises(ImageError) as caught:
        list(read_ahead(Numbers(5, fail), num_workers, name, batches=batches))
    assert str(caught.value) == "'5.png' cannot be read."


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_dies_is_one_line_that_names_where_it_was(num_workers):
    message = r"^A DataLoader worker died while loading [3-5]\.png, or one of the next samples\..*--workers 0"
    with pytest.raises(DataError, match=message):
        list(read_ahead(Numbers(5, die), num_workers, name))


def test_another_error_of_a_sample_is_not_taken_for_a_death():
    with pytest.raises(RuntimeError, match=r"Something else\."):
        list(read_ahead(Numbers(5, fail_otherwise), 1, name))


def test_a_death_is_raised_when_the_next_sample_is_asked_for_and_not_elsewhere():
    samples = read_ahead(Numbers(2, die), 1, name)
    assert next(samples) == 0
    for _ in range(100):  # torch's signal would come here
        time.sleep(0.01)
    with pytest.raises(DataError, match=r"[12]\.png"):
        list(samples)
