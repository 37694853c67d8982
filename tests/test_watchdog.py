"""A training that waits for a process which died or hangs ends itself."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def test_a_pause_is_no_step(clock):
    watchdog = Watchdog(100.0)
    clock[0] = 1.0
    watchdog.step()
    with watchdog.paused():
        clock[0] = 1000.0
    clock[0] = 1001.0
    watchdog.step()
    assert watchdog.limit == 100


def test_alone_it_may_take_all_the_time_it_wants():
    with watch(1, 0.01) as watchdog:
        watchdog.step()
        time.sleep(0.3)
    assert watchdog.limit == 0.01  # passed by far, and this test goes on


WAITING = """
import time
from kshot.training.watchdog import watch
with watch(2, 0.2) as watchdog:
    watchdog.step()
    {meanwhile}
print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("meanwhile", "status"),
    [("time.sleep(60)", 1), ("with watchdog.paused(): time.sleep(1)", 0), ("pass", 0)],
)
def test_a_process_that_stands_still_ends_itself(meanwhile, status):
    script = WAITING.format(meanwhile=meanwhile)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert done.returncode == status
    assert ("done" in done.stdout) == (status == 0)
    assert ("No step was taken for" in done.stderr) == (status == 1)


SCRIPT = """
import os, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_trainer import points, training
from kshot.training.recipes import RuntimeArgs
from kshot.training.trainer import fit
from kshot.training.run_folder import RunFolder
one = training(100)
one.phase = one.phase._replace(runtime=RuntimeArgs(device="cpu", patience=2.0))
rank = one.accelerator.process_index

def batches(first):
    for number in range(100):
        if rank == 1 and number == 5:
            {then}
        yield [points(number)]

run = RunFolder(Path({out!r}), "{{}}", resume=False, is_main=rank == 0)
fit(one, batches, run, lambda learner: {{"miou": 0.0}})
"""


@pytest.mark.parametrize(
    ("then", "said"),
    [("time.sleep(600)", "another process died or hangs"), ("os.kill(os.getpid(), 9)", "SIGKILL")],
)
def test_where_one_process_hangs_or_dies_all_end(tmp_path, then, said):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path / "run"), then=then))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, "--master-port", "29619", str(script)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert said in done.stderr
