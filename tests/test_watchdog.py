"""A training that waits for a process which died or hangs ends itself."""

import os
import signal
import time

import pytest
from processes import run_alone, run_together
from test_trainer import points, training

from kshot.training.recipes import RuntimeArgs
from kshot.training.run_folder import RunFolder
from kshot.training.trainer import fit
from kshot.training.watchdog import FIRST, SLOWEST, Watchdog, watch


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr("kshot.training.watchdog.time.monotonic", lambda: now[0])
    return now


def test_the_limit_follows_the_slowest_step(clock):
    watchdog = Watchdog(100.0)
    assert watchdog.limit == 100 * FIRST
    limits = []
    for now in (2, 32, 33):  # steps of 2, 30 and 1 seconds
        clock[0] = now
        watchdog.step()
        limits.append(watchdog.limit)
    assert limits == [100, 30 * SLOWEST, 30 * SLOWEST]


def test_a_pause_does_not_count_as_a_step(clock):
    watchdog = Watchdog(100.0)
    clock[0] = 1.0
    watchdog.step()
    with watchdog.paused():
        clock[0] = 1000.0
    clock[0] = 1001.0
    watchdog.step()
    assert watchdog.limit == 100


def test_a_single_process_has_no_limit():
    with watch(1, 0.01) as watchdog:
        watchdog.step()
        time.sleep(0.3)
    assert watchdog.limit == 0.01  # exceeded, and this process still runs


def sleep(watchdog):
    time.sleep(60)


def sleep_in_a_pause(watchdog):
    with watchdog.paused():
        time.sleep(1)


def end_at_once(watchdog):
    pass


def wait_after_a_step(meanwhile):
    with watch(2, 0.2) as watchdog:
        watchdog.step()
        meanwhile(watchdog)


@pytest.mark.parametrize(("meanwhile", "status"), [(sleep, 1), (sleep_in_a_pause, 0), (end_at_once, 0)])
def test_a_process_that_hangs_ends_itself(tmp_path, meanwhile, status):
    ended = run_alone(wait_after_a_step, meanwhile, log=tmp_path / "stderr.txt")
    assert ended.status == status
    assert ("No step was taken for" in ended.stderr) == (status == 1)


def hang():
    time.sleep(600)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def train_with_a_fault(out, fault):
    """Train in one of two processes; before its sixth step the second one hangs or dies."""
    one = training(100)
    one.phase = one.phase._replace(runtime=RuntimeArgs(device="cpu", patience=2.0))
    rank = one.accelerator.process_index

    def batches(first):
        for number in range(100):
            if rank == 1 and number == 5:
                fault()
            yield [points(number)]

    run = RunFolder(out, "{}", resume=False, is_main=rank == 0)
    fit(one, batches, run, lambda learner: {"miou": 0.0})


@pytest.mark.parametrize(("fault", "status"), [(hang, 1), (die, -signal.SIGKILL)])
def test_if_one_process_hangs_or_dies_all_end(tmp_path, fault, status):
    first, second = run_together(train_with_a_fault, tmp_path / "run", fault, folder=tmp_path)
    assert first.status != 0
    assert second.status == status
    if fault is hang:
        assert "another process died or hangs" in first.stderr
