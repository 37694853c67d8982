import sys

import pytest
from conftest import ROOT, load_module
from test_suite_results import made_up

from kshot.errors import DataError
from kshot.evaluation.results import write_result


@pytest.fixture
def dev_suite(monkeypatch, tmp_path):
    """Give the script, in a folder of its own."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks/results/dev").mkdir(parents=True)
    return load_module(ROOT / "benchmarks" / "dev_suite.py")


def run(dev_suite, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["dev_suite.py", *arguments])
    dev_suite.main()


def test_tables_show_all_that_is_measured(dev_suite, monkeypatch, tmp_path):
    a, b = made_up(name="prototype"), made_up(gain=5, name="forest")
    write_result(a, dev_suite.TASKS_1.file("prototype"))
    write_result(b, dev_suite.TASKS_1.file("forest"))
    write_result(made_up(shots=5, name="forest"), dev_suite.TASKS_5.file("forest"))
    document = tmp_path / "page.md"
    document.write_text(
        "\n".join(f"<!-- {s} table-dev{t} -->" for t in ("", "-sets") for s in ("begin", "end"))
    )
    run(dev_suite, monkeypatch, "--only-table", "--into", str(document))
    lines = document.read_text().splitlines()
    (mine,) = [line for line in lines if line.startswith("| `prototype` | ")]
    low, high = a.interval
    assert f"| {100 * a.iou:.1f} ({100 * low:.1f} to {100 * high:.1f}) | – | – |" in mine  # noqa: RUF001
    assert mine.endswith("| 0.25 |")
    (best,) = [line for line in lines if line.startswith("| best of all")]
    assert f"| {100 * b.iou:.1f} |" in best  # it gains in each task
    (one,) = [line for line in lines if line.startswith("| one |")]
    assert f"| 2 | {100 * a.sets['one'].iou:.1f} | **{100 * b.sets['one'].iou:.1f}** |" in one
    document.write_text("nothing")
    with pytest.raises(DataError, match="has no markers of table-dev or table-dev-sets"):
        run(dev_suite, monkeypatch, "--only-table", "--into", str(document))


def test_results_of_other_episodes_are_not_mixed(dev_suite, monkeypatch):
    write_result(made_up(), dev_suite.TASKS_1.file("prototype"))
    write_result(made_up(seed=1), dev_suite.TASKS_1.file("mine"))
    with pytest.raises(DataError, match="were scored on different episodes"):
        run(dev_suite, monkeypatch, "--only-table")


def test_what_is_no_model_is_named_before_anything_runs(dev_suite):
    with pytest.raises(
        DataError, match=r"no model 'protoype' here\. Choose from two-pass-general, prototype, "
    ):
        dev_suite.measure(["protoype"], None, None)
    with pytest.raises(DataError, match="'mine=nowhere' names no folder"):
        dev_suite.measure(["mine=nowhere"], None, None)
