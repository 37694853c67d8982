"""A step whose gradient is not finite is skipped on every process, and several in a row end the training."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from processes import run_together
from torch import nn

from kshot import DataError
from kshot.training.recipes import RuntimeArgs
from kshot.training.run_folder import RunFolder
from kshot.training.trainer import Phase, Trainer, fit, leave_processes


class Line(nn.Module):
    """A line through normalised points, with a loss for each batch of them."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.line = nn.Linear(3, 1)

    def forward(self, points):
        return {"square": self.line(self.norm(points)).square().mean()}


def training(steps, clip=None, ema=None):
    torch.manual_seed(0)
    learner = Line()
    phase = Phase(
        0,
        steps,
        lambda step: 1.0,
        0,
        RuntimeArgs(device="cpu"),
        clip=clip,
        ema=ema,
        describe=lambda s: f"step {s}",
    )
    optimiser = torch.optim.Adam(learner.parameters(), 0.1)
    return Trainer(learner, optimiser, phase, Accelerator(cpu=True))


def points(number, broken=None):
    drawn = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
    return drawn if broken is None else drawn.fill_(broken)


def state(one):
    learned = dict(one.learner.state_dict())
    return learned if one.average is None else learned | dict(one.average.state_dict())


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 1e30])  # the square of 1e30 is infinite
@pytest.mark.parametrize(("clip", "ema"), [(None, None), (1.0, 0.9)])
def test_a_skipped_step_changes_nothing(broken, clip, ema):
    with_it, without = training(3, clip, ema), training(2, clip, ema)
    if broken == 1e30:
        with_it.learner.norm.eval()
        with_it.learner.norm.train = lambda mode=True: with_it.learner.norm  # else it divides by the spread
        without.learner.norm.eval()
        without.learner.norm.train = lambda mode=True: without.learner.norm
    taken = [with_it.take_step([one]).is_taken for one in (points(0), points(0, broken), points(1))]
    assert taken == [True, False, True]
    for number in (0, 1):
        assert without.take_step([points(number)]).is_taken
    for key, value in state(without).items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, state(with_it)[key]), key


def test_a_broken_part_skips_its_whole_batch():
    one = training(2)
    one.accelerator.gradient_accumulation_steps = 2
    before = {key: value.clone() for key, value in state(one).items()}
    assert not one.take_step([points(0, float("nan")), points(1)]).is_taken
    assert all(torch.equal(value, before[key]) for key, value in state(one).items())
    assert one.take_step([points(0), points(1)]).is_taken


def run_through(folder, broken_steps, steps=20):
    one = training(steps)
    run = RunFolder(folder, "{}", resume=False)
    run.begin()
    batches = ([points(n, float("nan") if n in broken_steps else None)] for n in range(steps))
    fit(one, lambda first: batches, run, lambda learner: {"miou": 0.0})
    return run


def test_the_log_counts_skipped_steps(tmp_path):
    log = [entry for entry in run_through(tmp_path, {3, 5, 6}).read_log() if "losses" in entry]
    assert [entry.get("skipped", 0) for entry in log] == [3, 0]
    assert all(entry["losses"]["square"] > 0 for entry in log)
    assert not (run_through(tmp_path / "whole", set()).path / "skipped_steps.jsonl").exists()


def test_three_skipped_steps_in_a_row_end_the_run_and_are_logged(tmp_path):
    with pytest.raises(DataError, match="not finite in 3 steps in a row, the last of them step 13") as error:
        run_through(tmp_path, {4, 5, 10, 11, 12, 13})
    path = tmp_path / "skipped_steps.jsonl"
    assert str(path) in str(error.value)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 5, 10, 11, 12]
    assert lines[-1]["shows"] == "step 12"
    assert lines[-1]["losses"] == {"square": "nan"}
    assert "line.weight" in lines[-1]["not_finite"]


def take_three_steps(folder):
    """Take three steps in one of two processes; the second one's second batch is broken."""
    one = training(3)
    rank = one.accelerator.process_index
    broken = points(0, float("nan")) if rank == 1 else points(0)
    taken = [one.take_step([batch]).is_taken for batch in (points(rank), broken, points(2 + rank))]
    assert all(torch.isfinite(value).all() for value in state(one).values())
    sums = [float(value.detach().double().sum()) for value in one.learner.parameters()]
    (folder / f"rank{rank}").write_text(repr((taken, sums)))
    del one, broken
    leave_processes()
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], threads


def test_processes_skip_the_same_step_and_end_their_threads(tmp_path):
    for status, stderr in run_together(take_three_steps, tmp_path, folder=tmp_path):
        assert status == 0, stderr
    first, second = ((tmp_path / f"rank{rank}").read_text() for rank in (0, 1))
    assert first == second
    assert first.startswith("([True, False, True]")
