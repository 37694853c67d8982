import pytest
from make_data import result_of

from kshot.errors import DataError
from kshot.evaluation.comparison import compare


def test_the_same_result_differs_by_nothing():
    a = result_of()
    for difference in compare(a, a):
        assert difference.difference == 0
        assert difference.interval == (0, 0)


def test_a_steady_gain_is_significant_although_each_interval_is_wide():
    a, b = result_of(seed=0), result_of(seed=0, gain=3)
    differences = compare(a, b)
    assert [d.name for d in differences] == ["miou", "fb_iou", "ant", "bee", "cow"]
    miou = differences[0]
    assert miou.difference == pytest.approx(b.miou - a.miou)
    assert 0 < miou.interval[0] <= miou.difference <= miou.interval[1]
    wide = a.interval["miou"][1] - a.interval["miou"][0]
    assert miou.interval[1] - miou.interval[0] < wide / 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fold": 1}, "fold differs"),
        ({"shots": 5}, "number of shots differs"),
        ({"manifest_sha256": "f" * 64}, "set of episodes .* differs"),
        ({"scored_at": "original"}, "size at which they were scored differs"),
        ({"image_size": 473}, "scored at 400 and at 473"),
    ],
)
def test_results_of_other_episodes_are_refused(changes, reason):
    with pytest.raises(DataError, match=reason):
        compare(result_of(), result_of(**changes))
