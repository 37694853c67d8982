"""DataLoader workers and training processes that die or hang, and NaN losses."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

from benchmarks.harness import settings
from benchmarks.robustness.rows import CannotRun, Outcome, Row
from benchmarks.robustness.training_runs import (
    TIMEOUT,
    TrainingInputs,
    sha256,
    wait_for,
    write_training_inputs,
)
from kshot.data.folder import Folder
from kshot.methods.hub import WEIGHTS_FILE
from kshot.training.episodes import TrainingEpisodes
from kshot.training.recipes import TrainConfig
from kshot.training.run_folder import LOG, RECIPE, SKIPPED_STEPS

KSHOT = [sys.executable, "-c", "from kshot.cli.main import main; main()"]

WORKER_SECONDS = 30.0
"""Seconds within which a dead worker must be noticed."""

GONE_SECONDS = 180.0
"""Seconds within which all processes must have ended."""

MANY = 20_000
"""Steps, epochs or episodes of runs that are killed."""


class CommandResult(NamedTuple):
    """The result of a command. seconds: since the worker was killed; None if it had to be killed, too."""

    status: int
    seconds: float | None
    stderr: str


def dead_workers(folder: Path) -> Outcome:
    """Kill a DataLoader worker."""
    inputs = write_training_inputs(folder)
    commands = {
        "pretrain": inputs.pretrain(folder / "base", *settings("workers=1"), epochs=(MANY, 1)),
        "evaluate": [
            *("evaluate", "--data", str(inputs.data), "--episodes", str(MANY)),
            *settings("image_size=65", "workers=2"),
        ],
    }
    results = {verb: _kill_worker(command, inputs, folder) for verb, command in commands.items()}
    met = {verb: _is_reported(one, inputs) for verb, one in results.items()}
    for verb, one in results.items():
        if not met[verb]:
            print(verb, one, file=sys.stderr)
    slowest = max(TIMEOUT if one.seconds is None else one.seconds for one in results.values())
    statuses = " and ".join(str(one.status) for one in results.values())
    figure = f"{sum(met.values())}/{len(met)} name an image; exit status {statuses}; {slowest:.0f} s"
    return Outcome(figure, all(met.values()))


def _kill_worker(command: list[str], inputs: TrainingInputs, folder: Path) -> CommandResult:
    """Start a command, let its first worker read for a while, and kill that worker."""
    with _running([*KSHOT, *command], folder / "stderr.txt") as process:
        assert wait_for(lambda: bool(_workers(process.pid))), (folder / "stderr.txt").read_text()
        time.sleep(5)
        start = time.monotonic()
        os.kill(_workers(process.pid)[0], signal.SIGKILL)
        seconds = time.monotonic() - start if _ends(process, TIMEOUT) else None
        return CommandResult(process.returncode or 0, seconds, (folder / "stderr.txt").read_text())


def _workers(process: int) -> list[int]:
    """Return the DataLoader workers of a process."""
    return [one for one in _children(process) if _proc_file(one, "comm").strip() == "pt_data_worker"]


def _is_reported(one: CommandResult, inputs: TrainingInputs) -> bool:
    lines = one.stderr.strip().splitlines()
    is_soon = one.seconds is not None and one.seconds < WORKER_SECONDS
    return one.status != 0 and is_soon and len(lines) == 1 and str(inputs.data / "images") in lines[0]


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command; kill all its remaining processes at the end."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=env)
    try:
        yield process
    finally:
        for one in (process.pid, *_descendants(process.pid)):
            _send(one, signal.SIGKILL)
        process.wait()


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _children(process: int) -> list[int]:
    """Return the child processes of a process."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _descendants(process: int) -> list[int]:
    children = _children(process)
    return [*children, *(one for child in children for one in _descendants(child))]


def _send(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def _proc_file(process: int, what: str) -> str:
    """Return the content of a file of a process in /proc; empty if the process has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/{what}").read_text(errors="replace")
    return ""


def _is_gone(process: int) -> bool:
    """Return whether a process has ended; one that was not waited for is listed as a zombie."""
    return _proc_file(process, "stat").rpartition(")")[2].split()[:1] in ([], ["Z"])


class Case(NamedTuple):
    """A failure of one of two training processes.

    launchers: one for both, or one each. sent_signal: None means that its image files block forever, as
    on a lost network disk. includes_launcher: its launcher gets the signal, too, as if a machine failed.
    """

    name: str
    launchers: int
    sent_signal: signal.Signals | None
    includes_launcher: bool = False


CASES = (
    Case("killed", 1, signal.SIGKILL),
    Case("frozen", 1, signal.SIGSTOP),
    Case("killed (two launchers)", 2, signal.SIGKILL),
    Case("hanging (two launchers)", 2, None),
    Case("frozen (two launchers)", 2, signal.SIGSTOP),
    Case("killed with its launcher", 2, signal.SIGKILL, True),
)


def dead_ranks(folder: Path, cases: tuple[Case, ...] = CASES) -> Outcome:
    """Kill or freeze one of two training processes, and wait until all have ended."""
    if sys.platform != "linux":
        raise CannotRun("processes are found in /proc, which only Linux has")
    inputs = write_training_inputs(folder)
    with (
        ExitStack() as stack,
        ThreadPoolExecutor(len(cases)) as pool,
    ):  # each thread waits for one case
        watched = [
            pool.submit(_seconds_until_gone, _disrupt(case, inputs, folder / f"{number}", stack))
            for number, case in enumerate(cases)
        ]
        took = {case: one.result() for case, one in zip(cases, watched, strict=True)}
    shown = [f"{case.name} {'no' if took[case] is None else f'{took[case]:.0f} s'}" for case in cases]
    gone = sum(seconds is not None for seconds in took.values())
    figure = f"{gone}/{len(cases)} have ended within {GONE_SECONDS:.0f} s: {', '.join(shown)}"
    return Outcome(figure, gone == len(cases))


def _seconds_until_gone(processes: list[int]) -> float | None:
    """Wait until processes have ended; return the seconds, or None after GONE_SECONDS."""
    start = time.monotonic()
    while not all(map(_is_gone, processes)):
        if time.monotonic() - start > GONE_SECONDS:
            return None
        time.sleep(0.2)
    return time.monotonic() - start


def _disrupt(case: Case, inputs: TrainingInputs, folder: Path, stack: ExitStack) -> list[int]:
    """Start training and disrupt one process; return all processes."""
    shutil.copytree(inputs.data, folder / "data")  # read by the process with its own launcher
    all_inputs, port, out = (inputs, inputs._replace(data=folder / "data")), _free_port(), folder / "run"
    options = settings("method=hsnet", "cache_gb=0")
    launchers = []
    for rank in range(case.launchers):
        training = all_inputs[rank].train(out, *options, steps=MANY)
        command = _launch_command(training, port, case.launchers, rank)
        launchers.append(stack.enter_context(_running(command, folder / f"{rank}.txt")))
    has_begun = wait_for(lambda: (out / LOG).exists() and len((out / LOG).read_text().splitlines()) > 2)
    assert has_begun, (folder / "0.txt").read_text()
    trainers = [one for launcher in launchers for one in _descendants(launcher.pid)]
    victims = [one for one in trainers if _environment(one).get("RANK") == "1"]
    victims += [launchers[-1].pid] if case.includes_launcher else []
    if case.sent_signal is None:
        _block_reads(folder / "data" / "images")
    else:
        for victim in victims:
            _send(victim, case.sent_signal)
    return [*trainers, *(launcher.pid for launcher in launchers)]


def _block_reads(images: Path) -> None:
    """Replace images by pipes without a writer, so that opening one blocks forever."""
    for path in images.iterdir():
        pipe = path.with_suffix(".pipe")
        os.mkfifo(pipe)
        pipe.replace(path)


def _launch_command(command: list[str], port: int, nodes: int = 1, rank: int = 0) -> list[str]:
    """Return a torchrun command for two processes, or for one of two nodes on this machine."""
    script = str(Path(sys.executable).with_name("kshot"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(2 // nodes)]
    place = ["--nnodes", str(nodes), "--node-rank", str(rank), "--master-addr", "127.0.0.1"]
    return [*launcher, *place, "--master-port", str(port), script, *command]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _environment(process: int) -> dict[str, str]:
    return dict(line.split("=", 1) for line in _proc_file(process, "environ").split("\0") if "=" in line)


def nan_losses(folder: Path) -> Outcome:
    """Train with NaN features: first those of one image that few steps use, then all."""
    inputs = write_training_inputs(folder, count=40)
    whole, one, two, all_broken = (folder / name for name in ("whole", "one", "two", "all"))
    options = settings("method=hsnet", "center_features=false", "batch=2")
    commands = {out: inputs.train(out, *options, steps=12) for out in (whole, one, two, all_broken)}
    _finish([*KSHOT, *commands[whole]], folder)
    shown = _shown(whole)
    name, broken = _choose_image(shown)
    _fill_with_nan(folder / "features", inputs.data / "images" / f"{name}.png")
    _finish([*KSHOT, *commands[one]], folder)
    _finish(_launch_command(commands[two], _free_port()), folder)
    num_skipped = [_num_skipped(out) for out in (one, two)]
    is_finite = all(bool(torch.isfinite(value).all()) for value in load_file(two / WEIGHTS_FILE).values())
    apart = max(abs(a - b) for a, b in zip(_losses(one), _losses(two), strict=True))
    for path in (inputs.data / "images").iterdir():
        _fill_with_nan(folder / "features", path)
    status = _run(_launch_command(commands[all_broken], _free_port()), folder)
    path = all_broken / SKIPPED_STEPS
    dumped = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    is_named = (
        [one["shows"] for one in dumped] == shown[:3]
        and status != 0
        and not (all_broken / WEIGHTS_FILE).exists()
    )
    weights = "finite" if is_finite else "not finite"
    figure = (
        f"{broken} of {len(shown)} steps are NaN; one process skips {num_skipped[0]}, two skip "
        f"{num_skipped[1]}, their losses differ by {apart:.0e}; weights {weights}; three in a row: "
        f"exit status {status}, {len(dumped)} steps dumped"
    )
    return Outcome(figure, num_skipped == [broken] * 2 and apart < 1e-4 and is_finite and is_named)


def _finish(command: list[str], folder: Path) -> None:
    status = _run(command, folder)
    assert status == 0, (folder / "stderr.txt").read_text()


def _run(command: list[str], folder: Path) -> int:
    with _running(command, folder / "stderr.txt") as process:
        assert _ends(process, TIMEOUT), "it hangs"
        return process.returncode


def _shown(run: Path) -> list[list[dict[str, str]]]:
    """Return the images of each step of a run."""
    config = TrainConfig.model_validate_json((run / RECIPE).read_text())
    episodes = TrainingEpisodes(config, Folder(Path(config.data)))
    steps = sum(stage.steps for stage in config.sizes)
    return [episodes.names(range(step * config.batch, (step + 1) * config.batch)) for step in range(steps)]


def _choose_image(shown: list[list[dict[str, str]]]) -> tuple[str, int]:
    """Return the image used by most steps, but never three in a row, and the number of these steps."""
    found = {}
    for name in {one["query"] for episodes in shown for one in episodes}:
        seen = [any(name in (one["query"], one["support"]) for one in episodes) for episodes in shown]
        if not any(all(seen[step : step + 3]) for step in range(len(seen) - 2)):
            found[name] = sum(seen)
    name = max(sorted(found), key=found.__getitem__)
    return name, found[name]


def _fill_with_nan(cache: Path, image: Path) -> None:
    """Replace the cached features of an image by NaN."""
    for path in cache.rglob(f"{sha256(image)[:24]}*"):
        save_file({key: torch.full_like(value, math.nan) for key, value in load_file(path).items()}, path)


def _num_skipped(run: Path) -> int:
    return sum(json.loads(line).get("skipped", 0) for line in (run / LOG).read_text().splitlines())


def _losses(run: Path) -> list[float]:
    entries = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return [entry["losses"]["final"] for entry in entries if "losses" in entry]


ROWS = (
    Row(
        "workers-die",
        "`kill -9` of a DataLoader worker of `kshot pretrain` and `kshot evaluate`",
        "an image named, exit status not 0, < 30 s",
        dead_workers,
    ),
    Row(
        "ranks-die",
        "one of two training processes is killed, frozen or hangs, under one launcher or two",
        "all processes have ended within 180 s",
        dead_ranks,
    ),
    Row(
        "nan-losses",
        "NaN losses in one of two training processes",
        "both skip the step; three in a row end the run and dump the episodes; weights finite",
        nan_losses,
    ),
)
