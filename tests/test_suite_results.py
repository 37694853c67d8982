import json

import numpy as np
import pytest
from make_data import colour_segmenter, settings, write_folder
from test_cli import run

from kshot.data.tasks import TaskSet, draw_episodes, folder_set
from kshot.errors import DataError
from kshot.evaluation.metrics import Counts
from kshot.evaluation.results import write_result
from kshot.evaluation.suite import EpisodeScore, SegmenterRunner
from kshot.evaluation.suite_results import (
    PeerRecord,
    compare_suites,
    is_suite_result,
    make_suite_result,
    read_suite_result,
    score_suite,
    suite_summary,
)
from kshot.io.provenance import record_provenance


class NamesOnly:
    class_names = ("ant", "bee")


def sets_of(*names):
    images = tuple(f"im{n}" for n in range(20))
    return [TaskSet(name, NamesOnly(), {0: images, 1: images}) for name in names]


def made_up(gain=0, names=("one", "two", "three"), name="peer", **options):
    """Make a result up: `gain` pixels more are found in each episode."""
    sets = sets_of(*names)
    drawn = draw_episodes(sets, **({"shots": 1, "queries": 4} | options))
    random = np.random.default_rng(0)
    found = []
    for episode in drawn.episodes:
        union = int(random.integers(50, 100))
        both = min(int(union * random.random() * 0.8) + gain, union)
        counts = Counts(both, union, 900 - union, 900 - both)
        found.append(EpisodeScore(episode, counts, float(random.random()), 0.25))
    return make_suite_result(
        found, PeerRecord(name=name, settings={"k": 1}), sets, drawn, record_provenance([])
    )


def test_scores_can_be_computed_again_from_the_columns():
    result = made_up()
    columns = result.episodes
    tasks = {}
    for index, (name, task) in enumerate(result.tasks):
        draws = []
        for draw in range(3):
            rows = [n for n, t in enumerate(columns.task) if t == index and columns.draw[n] == draw]
            both, either = (sum(c[n] for n in rows) for c in (columns.intersection, columns.union))
            draws.append(both / either)
        tasks[name, task] = np.mean(draws)
        assert result.sets[name].tasks[task] == pytest.approx(tasks[name, task])
    sets = {name: np.mean([tasks[name, task] for task in ("ant", "bee")]) for name in result.sets}
    assert {name: one.iou for name, one in result.sets.items()} == pytest.approx(sets)
    assert result.iou == pytest.approx(np.mean(list(sets.values())))
    assert result.interval[0] < result.iou < result.interval[1]
    assert result.seconds_per_image == 0.25


def test_a_result_is_written_and_read_again(tmp_path):
    result = made_up()
    write_result(result, tmp_path / "a.json")
    assert is_suite_result(tmp_path / "a.json")
    assert read_suite_result(tmp_path / "a.json") == result
    (tmp_path / "b.json").write_text('{"kind": "suite"}')
    with pytest.raises(DataError, match=r"b.json is no result of kshot evaluate --data tasks:DIR"):
        read_suite_result(tmp_path / "b.json")
    with pytest.raises(DataError, match="There is no result file"):
        read_suite_result(tmp_path / "c.json")
    assert not is_suite_result(tmp_path / "c.json")


def test_the_same_result_differs_by_nothing():
    for names in (("one", "two", "three"), ("one",)):
        one = made_up(names=names)
        differences = compare_suites(one, one)
        assert [d.name for d in differences] == ["mean", *names]
        assert all(d.difference == 0 and d.interval == (0, 0) for d in differences)


def test_a_steady_gain_is_significant_although_each_interval_is_wide():
    a, b = made_up(), made_up(gain=5)
    for difference in compare_suites(a, b):
        assert 0 < difference.interval[0] <= difference.difference <= difference.interval[1]
    overall = compare_suites(a, b)[0]
    assert overall.interval[1] - overall.interval[0] < (a.interval[1] - a.interval[0]) / 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shots": 2}, r"number of shots differs \(1 and 2\)"),
        ({"seed": 1}, r"set of episodes \(sha256\) differs"),
        ({"names": ("one",)}, "tasks differ. Run"),
    ],
)
def test_results_of_other_episodes_are_refused(options, reason):
    with pytest.raises(DataError, match=reason):
        compare_suites(made_up(), made_up(**options))


def test_the_summary_says_all(tmp_path):
    text = "\n".join(suite_summary(made_up(names=("one", "two"))))
    assert "4 tasks of 2 sets, 1-shot, 3 draws of up to 4 queries (seed 0)" in text
    assert "48 episodes; model peer" in text
    assert "mean IoU" in text
    assert "object covers 25 to 100 % of the image" in text
    assert "0.25 s of the processor" in text


def test_a_model_that_knows_the_object_scores_high(tmp_path):
    pairs = [(f"im{n}", n % 2) for n in range(10)]
    sets = [folder_set(write_folder(tmp_path / "set", pairs, class_names=("ant", "bee")))]
    drawn = draw_episodes(sets, 1, queries=2)
    runner, record = SegmenterRunner(colour_segmenter()), PeerRecord(name="colour", settings={})
    result = score_suite(runner, record, sets, drawn, record_provenance(["evaluate"]))
    assert result.iou > 0.9
    assert result.episodes_sha256 == drawn.sha256
    assert set(result.sets["set"].tasks) == {"ant", "bee"}


@pytest.fixture
def suite(tmp_path):
    for name in ("one", "two"):
        pairs = [(f"im{n}", 0) for n in range(6)] + [("im0", 1)]
        write_folder(tmp_path / "sets" / name, pairs, class_names=("ant", "bee"))
    return f"tasks:{tmp_path / 'sets'}"


def test_the_command_scores_a_suite_and_compares(suite, tmp_path, capsys):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    options = ["evaluate", "--data", suite, *settings("draws=2"), "--episodes", 2]
    assert run(*options, *settings("image_size=65"), "--json", first) == 0
    printed = capsys.readouterr()
    assert "2 tasks of 2 sets, 1-shot, 2 draws of up to 2 queries (seed 0)" in printed.out
    assert "8 episodes; model prototype (prototype, efficientnet_lite0, 65 px)" in printed.out
    assert "fewer than the 4 images of a task: one: bee (1), two: bee (1)." in printed.err
    assert json.loads(first.read_text())["provenance"]["command"].startswith("kshot evaluate --data tasks:")
    assert run(*options, *settings("image_size=97"), "--json", second) == 0
    assert run("compare", first, second, "--json", tmp_path / "c.json") == 0
    printed = capsys.readouterr().out
    assert "A: prototype, efficientnet_lite0\nB: prototype, efficientnet_lite0\n" in printed
    assert [d["name"] for d in json.loads((tmp_path / "c.json").read_text())] == ["mean", "one", "two"]


def test_a_suite_is_compared_with_a_suite_only(tmp_path, capsys):
    write_result(made_up(name="logistic"), tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{}")
    assert run("compare", tmp_path / "a.json", tmp_path / "b.json") == 2
    assert "a.json is of a suite of tasks. Compare two results of one kind." in " ".join(
        capsys.readouterr().err.split()
    )
    assert run("compare", tmp_path / "a.json", tmp_path / "a.json") == 0
    assert capsys.readouterr().out.startswith("A: logistic\n")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--fold", 1], "--fold is 1, but tasks:DIR does not use it. Leave it out."),
        (["--fold", 0], "--fold is 0, but"),
        (["--protocol", "hsnet"], "--protocol is hsnet, but"),
        (["--manifest", "m.json"], "--manifest is m.json, but"),
        (settings("split=val"), "--set split is val, but"),
        (settings("scored_at=network"), "--set scored_at is network, but"),
        (settings("workers=2"), "--set workers is 2, but"),
        (settings("seeds=1,2"), "takes one seed, but 2 were given"),
        (["--shots", 9], "the largest class has 6"),
    ],
)
def test_options_without_sense_are_refused(suite, capsys, options, reason):
    assert run("evaluate", "--data", suite, *options) != 0
    assert reason in " ".join(capsys.readouterr().err.split())


def test_draws_need_a_suite(suite, capsys):
    assert run("evaluate", "--data", suite.removeprefix("tasks:") + "/one", *settings("draws=2")) != 0
    assert "--set draws is 2, but only tasks:DIR has draws" in capsys.readouterr().err
