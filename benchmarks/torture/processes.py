"""Processes that die or hang, of those that read ahead or train together; and losses that are no numbers."""

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

from benchmarks.torture.rows import CannotRun, Found, Row
from benchmarks.torture.trainings import RUNNING, Material, sha256, until, write_material
from kshot.data.folder import Folder
from kshot.methods.hub import WEIGHTS_FILE
from kshot.training.episodes import TrainingEpisodes
from kshot.training.recipes import TrainConfig
from kshot.training.run_folder import LOG, RECIPE, SKIPPED_STEPS

KSHOT = [sys.executable, "-c", "from kshot.cli.main import main; main()"]

SLOWEST = 30.0
"""Seconds in which a dead reader must be noticed."""

ALL_GONE = 180.0
"""Seconds in which all processes must be gone."""

FOREVER = 20_000
"""Steps, epochs or episodes of what is killed."""


class Told(NamedTuple):
    """How a command ended. seconds: from the deed on; None: it had to be killed."""

    status: int
    seconds: float | None
    stderr: str


def dead_workers(folder: Path) -> Found:
    """Kill a process that reads ahead for another one."""
    material = write_material(folder)
    commands = {
        "pretrain": material.pretrain(folder / "base", "--workers", "1", epochs=(FOREVER, 1)),
        "evaluate": [
            *("evaluate", "--data", str(material.data), "--episodes", str(FOREVER)),
            *("--image-size", "65", "--workers", "2"),
        ],
    }
    ended = {verb: _kill_reader(command, material, folder) for verb, command in commands.items()}
    met = {verb: _is_told(one, material) for verb, one in ended.items()}
    for verb, one in ended.items():
        if not met[verb]:
            print(verb, one, file=sys.stderr)
    slowest = max(RUNNING if one.seconds is None else one.seconds for one in ended.values())
    statuses = " and ".join(str(one.status) for one in ended.values())
    figure = f"{sum(met.values())}/{len(met)} name a photograph; exit status {statuses}; {slowest:.0f} s"
    return Found(figure, all(met.values()))


def _kill_reader(command: list[str], material: Material, folder: Path) -> Told:
    """Start a command, and kill the first process that it has started when that has read for a while."""
    with _started([*KSHOT, *command], folder / "told.txt") as process:
        assert until(lambda: bool(_readers(process.pid))), (folder / "told.txt").read_text()
        time.sleep(5)
        start = time.monotonic()
        os.kill(_readers(process.pid)[0], signal.SIGKILL)
        seconds = time.monotonic() - start if _ends(process, RUNNING) else None
        return Told(process.returncode or 0, seconds, (folder / "told.txt").read_text())


def _readers(process: int) -> list[int]:
    """List the processes that read ahead for one."""
    return [one for one in _children(process) if _about(one, "comm").strip() == "pt_data_worker"]


def _is_told(one: Told, material: Material) -> bool:
    lines = one.stderr.strip().splitlines()
    is_soon = one.seconds is not None and one.seconds < SLOWEST
    return one.status != 0 and is_soon and len(lines) == 1 and str(material.data / "images") in lines[0]


@contextmanager
def _started(command: list[str], told: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command; whatever of it is left at the end is killed."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    with told.open("wb") as file:
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
    """List the processes that one has started."""
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


def _about(process: int, what: str) -> str:
    """Read what the system says of a process; nothing of one that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/{what}").read_text(errors="replace")
    return ""


def _is_gone(process: int) -> bool:
    """Whether a process has ended; if nobody has asked how, it is still listed, as a zombie."""
    return _about(process, "stat").rpartition(")")[2].split()[:1] in ([], ["Z"])


class Case(NamedTuple):
    """Something that happens to one of two processes that train together.

    launchers: one for both, or one each. sent: a signal; None: it waits for its photographs for ever, as from
    another machine's disk that is gone. takes_launcher: its launcher is sent it too, as when a machine fails.
    """

    name: str
    launchers: int
    sent: signal.Signals | None
    takes_launcher: bool = False


CASES = (
    Case("killed", 1, signal.SIGKILL),
    Case("frozen", 1, signal.SIGSTOP),
    Case("killed, of two launchers", 2, signal.SIGKILL),
    Case("hangs, of two launchers", 2, None),
    Case("frozen, of two launchers", 2, signal.SIGSTOP),
    Case("killed with its launcher", 2, signal.SIGKILL, True),
)


def dead_ranks(folder: Path, cases: tuple[Case, ...] = CASES) -> Found:
    """Kill or stop one of two processes that train together, and wait until all are gone."""
    if sys.platform != "linux":
        raise CannotRun("processes are found in /proc, which only Linux has")
    material = write_material(folder)
    with (
        ExitStack() as stack,
        ThreadPoolExecutor(len(cases)) as pool,
    ):  # which watch the ones before meanwhile
        watched = [
            pool.submit(_seconds_until_gone, _strike(case, material, folder / f"{number}", stack))
            for number, case in enumerate(cases)
        ]
        took = {case: one.result() for case, one in zip(cases, watched, strict=True)}
    shown = [f"{case.name} {'no' if took[case] is None else f'{took[case]:.0f} s'}" for case in cases]
    gone = sum(seconds is not None for seconds in took.values())
    figure = f"{gone}/{len(cases)} are gone within {ALL_GONE:.0f} s: {', '.join(shown)}"
    return Found(figure, gone == len(cases))


def _seconds_until_gone(processes: list[int]) -> float | None:
    """Wait until processes are gone; None if they still are there after the time that is allowed."""
    start = time.monotonic()
    while not all(map(_is_gone, processes)):
        if time.monotonic() - start > ALL_GONE:
            return None
        time.sleep(0.2)
    return time.monotonic() - start


def _strike(case: Case, material: Material, folder: Path, stack: ExitStack) -> list[int]:
    """Start a training, and do to one process what is to be done; name all processes."""
    shutil.copytree(material.data, folder / "data")  # which that process reads if it has its own launcher
    materials, port, out = (material, material._replace(data=folder / "data")), _free_port(), folder / "run"
    options = ("--method", "hsnet", "--cache-gb", "0")
    launchers = []
    for rank in range(case.launchers):
        command = _launched(materials[rank].train(out, *options, steps=FOREVER), port, case.launchers, rank)
        launchers.append(stack.enter_context(_started(command, folder / f"{rank}.txt")))
    has_begun = until(lambda: (out / LOG).exists() and len((out / LOG).read_text().splitlines()) > 2)
    assert has_begun, (folder / "0.txt").read_text()
    trainers = [one for launcher in launchers for one in _descendants(launcher.pid)]
    victims = [one for one in trainers if _environment(one).get("RANK") == "1"]
    victims += [launchers[-1].pid] if case.takes_launcher else []
    if case.sent is None:
        _never_answer(folder / "data" / "images")
    else:
        for victim in victims:
            _send(victim, case.sent)
    return [*trainers, *(launcher.pid for launcher in launchers)]


def _never_answer(photographs: Path) -> None:
    """Put pipes that nobody writes to in the place of photographs: whoever opens one waits for ever."""
    for path in photographs.iterdir():
        pipe = path.with_suffix(".pipe")
        os.mkfifo(pipe)
        pipe.replace(path)


def _launched(command: list[str], port: int, nodes: int = 1, rank: int = 0) -> list[str]:
    """Let a launcher start two processes, or one of two on this machine, as if there were another."""
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
    return dict(line.split("=", 1) for line in _about(process, "environ").split("\0") if "=" in line)


def no_numbers(folder: Path) -> Found:
    """Train on features that are no numbers: of one photograph, which few steps show; and of all."""
    material = write_material(folder, count=40)
    whole, one, two, all_broken = (folder / name for name in ("whole", "one", "two", "all"))
    options = ("--method", "hsnet", "--no-center-features", "--batch", "2")
    commands = {out: material.train(out, *options, steps=12) for out in (whole, one, two, all_broken)}
    _finish([*KSHOT, *commands[whole]], folder)
    shown = _shown(whole)
    name, broken = _seen_at_times(shown)
    _spoil(folder / "features", material.data / "images" / f"{name}.png")
    _finish([*KSHOT, *commands[one]], folder)
    _finish(_launched(commands[two], _free_port()), folder)
    left_out = [_left_out(out) for out in (one, two)]
    is_finite = all(bool(torch.isfinite(value).all()) for value in load_file(two / WEIGHTS_FILE).values())
    apart = max(abs(a - b) for a, b in zip(_losses(one), _losses(two), strict=True))
    for path in (material.data / "images").iterdir():
        _spoil(folder / "features", path)
    status = _run(_launched(commands[all_broken], _free_port()), folder)
    path = all_broken / SKIPPED_STEPS
    dumped = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    is_named = (
        [one["shows"] for one in dumped] == shown[:3]
        and status != 0
        and not (all_broken / WEIGHTS_FILE).exists()
    )
    weights = "finite" if is_finite else "not finite"
    figure = (
        f"of {len(shown)} steps {broken} have no number; one process leaves {left_out[0]} out, two "
        f"{left_out[1]}, their losses differ by {apart:.0e}; weights {weights}; three in a row: exit status "
        f"{status}, {len(dumped)} steps dumped"
    )
    return Found(figure, left_out == [broken] * 2 and apart < 1e-4 and is_finite and is_named)


def _finish(command: list[str], folder: Path) -> None:
    status = _run(command, folder)
    assert status == 0, (folder / "told.txt").read_text()


def _run(command: list[str], folder: Path) -> int:
    with _started(command, folder / "told.txt") as process:
        assert _ends(process, RUNNING), "it hangs"
        return process.returncode


def _shown(run: Path) -> list[list[dict[str, str]]]:
    """List what each step of a run shows."""
    config = TrainConfig.model_validate_json((run / RECIPE).read_text())
    episodes = TrainingEpisodes(config, Folder(Path(config.data)))
    steps = sum(stage.steps for stage in config.sizes)
    return [episodes.names(range(step * config.batch, (step + 1) * config.batch)) for step in range(steps)]


def _seen_at_times(shown: list[list[dict[str, str]]]) -> tuple[str, int]:
    """Choose the photograph that most steps show, but never three in a row; and say how many do."""
    found = {}
    for name in {one["query"] for episodes in shown for one in episodes}:
        seen = [any(name in (one["query"], one["support"]) for one in episodes) for episodes in shown]
        if not any(all(seen[step : step + 3]) for step in range(len(seen) - 2)):
            found[name] = sum(seen)
    name = max(sorted(found), key=found.__getitem__)
    return name, found[name]


def _spoil(cache: Path, photograph: Path) -> None:
    """Make all numbers of a photograph's features no numbers."""
    for path in cache.rglob(f"{sha256(photograph)[:24]}*"):
        save_file({key: torch.full_like(value, math.nan) for key, value in load_file(path).items()}, path)


def _left_out(run: Path) -> int:
    return sum(json.loads(line).get("skipped", 0) for line in (run / LOG).read_text().splitlines())


def _losses(run: Path) -> list[float]:
    entries = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return [entry["losses"]["final"] for entry in entries if "losses" in entry]


ROWS = (
    Row(
        "workers-die",
        "`kill -9` of a process that reads ahead, of `kshot pretrain` and `kshot evaluate`",
        "a photograph named, exit status not 0, < 30 s",
        dead_workers,
    ),
    Row(
        "ranks-die",
        "one of two processes that train together is killed, or stopped, under one launcher or two",
        "all processes gone within 180 s",
        dead_ranks,
    ),
    Row(
        "no-numbers",
        "losses that are no numbers, of one process of two",
        "both leave the step out; three in a row end the run, with the episodes dumped; weights finite",
        no_numbers,
    ),
)
