from kshot.io import progress as module
from kshot.io.progress import progress


def test_without_a_terminal_a_line_comes_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    with progress("Reading", "images") as on_progress:
        on_progress(1, 4)
        on_progress(4, 4)
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.splitlines()[0].startswith("1/4 images (")
    assert "4/4 images (0 s left)" in printed.err


def test_a_quick_thing_says_nothing(capsys):
    with progress("Reading", "images") as on_progress:
        on_progress(1, 1)
    assert capsys.readouterr().err == ""


def test_the_time_left_counts_only_what_this_run_did(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", -1.0)
    times = iter([0.0, 20.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    with progress("Training", "steps", 100) as on_progress:
        on_progress(110, 150)
    assert "110/150 steps (80 s left)" in capsys.readouterr().err
