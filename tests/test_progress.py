from kshot import progress as module
from kshot.progress import progress


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
