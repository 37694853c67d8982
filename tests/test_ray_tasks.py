import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from make_data import scene
from test_cli import run
from test_shards import NAMES, files, take_colours, write_photos

from kshot.predict.ray_tasks import run_in


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Images, and the model that finds the support's colour."""
    take_colours(monkeypatch)
    return write_photos(tmp_path)


class OneProcess:
    """Ray, so to speak, that runs each task at once, here; or whose workers die."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self, dies=False):
        self.dies, self.is_up, self.needs = dies, False, {}

    def init(self):
        self.is_up = True

    def shutdown(self):
        self.is_up = False

    def remote(self, **needs):
        self.needs = needs
        return lambda function: SimpleNamespace(remote=lambda *arguments: (function, arguments))

    def get(self, tasks):
        assert self.is_up
        if self.dies:
            raise self.exceptions.RayError("The worker died.\nMore of it.")
        return [function(*arguments) for function, arguments in tasks]


def use(monkeypatch, ray):
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # so that it is as it was after the test
    return ray


@pytest.mark.parametrize("option", [["--ray", "3"], ["--ray=3"]])
def test_each_share_is_a_task(photos, monkeypatch, option):
    ray = use(monkeypatch, OneProcess())
    monkeypatch.chdir(photos)
    support = ["--support", "support.png", "mask.png", "queries", "--out"]
    assert run("segment", *option, *support, "out") == 1  # for the broken file
    assert not ray.is_up
    assert ray.needs == {"max_retries": 3, "num_cpus": 1, "num_gpus": 0}
    for number in (1, 2, 3):
        assert run("segment", *support, "shares", "--shard", f"{number}/3") in (0, 1)
    assert files(Path("out")) == files(Path("shares"))


def test_a_mistake_is_found_before_ray_is_started(photos, monkeypatch, capsys):
    ray = use(monkeypatch, OneProcess())
    ray.init = lambda: pytest.fail("Ray was started")
    support = ["--support", photos / "support.png", photos / "queries" / NAMES[0]]
    assert run("segment", *support, photos / "queries", "--out", photos / "out", "--ray", 2) == 2
    assert "has colours" in capsys.readouterr().err


def test_what_ray_cannot_do_is_one_line(photos, monkeypatch, capsys):
    support = ["--support", photos / "support.png", photos / "mask.png", photos / "queries"]
    for ray, reason in ((None, "pip install 'kshot[ray]'"), (OneProcess(dies=True), "(The worker died.)")):
        use(monkeypatch, ray)
        assert run("segment", *support, "--out", photos / "out", "--ray", 2) == 2
        printed = capsys.readouterr().err
        assert reason in printed
        assert printed.count("\n") == 1


def test_a_task_runs_in_the_commands_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # to come back afterwards
    (tmp_path / "there").mkdir()
    ran = []
    folder = str(tmp_path / "there")
    assert run_in(folder, lambda arguments: ran.append((Path.cwd().name, arguments)), ["a"]) == 0
    assert run_in(str(tmp_path), lambda _: sys.exit(2), []) == 2
    assert ran == [("there", ["a"])]


@pytest.mark.slow
def test_ray_itself_goes_on_where_a_worker_was_killed(tmp_path):
    write_photos(tmp_path)
    (tmp_path / "queries" / "broken.jpg").unlink()
    for number in range(40):
        scene(left=10 + number, seed=number)[0].save(tmp_path / "queries" / f"{number}.jpg")
    options = ["--support", "support.png", "mask.png", "queries", "--image-size", "257", "--out"]
    command = [sys.executable, "-c", "from kshot.cli.main import main; main()", "segment", *options]
    place = {"cwd": tmp_path, "env": os.environ | {"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}}
    subprocess.run([*command, "one"], check=True, capture_output=True, **place)
    on_ray = [*command, "out", "--ray", "2"]
    killed = None
    with subprocess.Popen(on_ray, stdout=subprocess.PIPE, text=True, **place) as running:
        for line in running.stdout:
            found = re.search(r"pid=(\d+)\S* 5/", line)
            if found and killed is None:
                killed = int(found[1])
                os.kill(killed, signal.SIGKILL)
    assert running.returncode == 0
    assert killed is not None
    one, out = files(tmp_path / "one"), files(tmp_path / "out")
    pictures = {name for name in one if name.endswith(("_mask.png", "_overlay.png"))}
    assert len(pictures) == 2 * (40 + len(NAMES))
    assert {name: out[name] for name in pictures} == {name: one[name] for name in pictures}
    done = [line for number in (1, 2) for line in out[f"done_{number}of2.jsonl"].splitlines()]
    assert len(done) == 40 + len(NAMES)  # nothing twice
