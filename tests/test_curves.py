import pytest

from kshot.errors import DataError
from kshot.reproduction.curves import curves_figure
from kshot.reproduction.style import save_figure

LOG = [
    {"phase": 0, "step": 0, "validation": {"miou": 0.1}},
    {"phase": 0, "step": 10, "losses": {"cls": 2.0, "final": 1.0}},
    {"phase": 0, "step": 20, "losses": {"cls": 1.5, "final": 0.8}},
    {"phase": 0, "step": 20, "validation": {"miou": 0.3}},
    {"phase": 1, "step": 10, "losses": {"cls": 1.4}},
]


def test_each_loss_and_score_is_a_line_and_phases_follow_one_another(tmp_path):
    figure = curves_figure(LOG)
    lines = {line.get_label(): line.get_xydata().tolist() for axes in figure.axes for line in axes.lines}
    assert lines == {
        "cls": [[10, 2.0], [20, 1.5], [30, 1.4]],
        "final": [[10, 1.0], [20, 0.8]],
        "mIoU": [[0, 0.1], [20, 0.3]],
    }
    save_figure(figure, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_an_empty_log_is_an_error():
    with pytest.raises(DataError, match="nothing to draw"):
        curves_figure([])
