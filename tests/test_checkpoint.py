import pytest
import torch
from make_data import full_after

from kshot.errors import WriteError
from kshot.training.checkpoint import Checkpoint, read_checkpoint, save_checkpoint


def checkpoint(step):
    return Checkpoint(0, step, {"weights": torch.full((3000,), float(step))}, {}, None, "{}")


@pytest.mark.parametrize("room", [0, 500, 9000])
def test_a_full_disk_leaves_the_checkpoint_before_and_is_said_with_the_path(tmp_path, room):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(checkpoint(1), path)
    with full_after(room), pytest.raises(WriteError, match=f"^{path} cannot be written: .*Free some space"):
        save_checkpoint(checkpoint(2), path)
    assert read_checkpoint(path, "{}").step == 1
    assert list(tmp_path.iterdir()) == [path]
