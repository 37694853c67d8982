import pytest

from kshot import DataError
from kshot.training.run_folder import RunFolder


def started(path):
    run = RunFolder(path, "{}", resume=False)
    run.begin()
    return run


def test_a_run_that_was_killed_after_its_first_validation_is_in_nobodys_way(tmp_path):
    """It has written weights, but no checkpoint: there is nothing to resume."""
    started(tmp_path)
    (tmp_path / "model.safetensors").touch()
    RunFolder(tmp_path, "{}", resume=False)


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.json"])
def test_what_a_run_has_come_to_is_not_written_over(tmp_path, name):
    started(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="holds a run already"):
        RunFolder(tmp_path, "{}", resume=False)


def test_somebodys_model_is_not_written_over(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(DataError, match="holds a run already"):
        RunFolder(tmp_path, "{}", resume=False)


def test_what_a_killed_run_was_just_writing_goes_away(tmp_path):
    left = tmp_path / ".kshot-1.pt"
    for goes_on in (RunFolder.begin, lambda run: run.truncate_after(0, 0)):
        run = started(tmp_path)
        left.touch()
        goes_on(run)
        assert not left.exists()
