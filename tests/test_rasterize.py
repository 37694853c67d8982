import numpy as np
import pytest
from pycocotools import mask as coco_mask
from test_instances import blobs

from kshot.annotations.rasterize import (
    box_polygon,
    decode_run_lengths,
    ellipse_polygon,
    fill_polygons,
    parse_coco_run_lengths,
    rotate,
)
from kshot.errors import MaskError

SIZE = (60, 80)


def test_polygons_are_rasterised_as_by_pycocotools_and_united():
    first, second = [(5.3, 4.2), (30.7, 8.1), (22.5, 30.9)], [(20, 10), (70.5, 12), (60, 50), (25, 40)]
    runs = coco_mask.frPyObjects([np.ravel(p).tolist() for p in (first, second)], *SIZE)
    np.testing.assert_array_equal(fill_polygons([first, second], SIZE), coco_mask.decode(runs).any(axis=2))
    assert not fill_polygons([], SIZE).any()


def test_what_lies_outside_is_cut_off_and_a_crossing_is_filled_by_parity():
    everything = fill_polygons([box_polygon(-20, -30, 500, 90)], SIZE)
    assert everything.all()
    assert not fill_polygons([box_polygon(85, 10, 95, 20)], SIZE).any()
    bow = fill_polygons([[(10, 10), (50, 50), (50, 10), (10, 50)]], SIZE)
    assert bow[30, 12]
    assert not bow[12, 30]


def test_boxes_of_whole_numbers_hold_exactly_their_pixels():
    wanted = np.zeros(SIZE, dtype=bool)
    wanted[12:20, 5:30] = True
    np.testing.assert_array_equal(fill_polygons([box_polygon(5, 12, 30, 20)], SIZE), wanted)
    turned = rotate(box_polygon(5, 12, 30, 20), 90, (17.5, 16))  # a quarter turn around its centre
    wanted = np.zeros(SIZE, dtype=bool)
    wanted[3:29, 13:22] = True
    inside = fill_polygons([turned], SIZE)
    assert not (inside & ~wanted).any()
    assert inside.sum() == pytest.approx(25 * 8, rel=0.15)


def test_turns_are_clockwise_as_one_sees_them():
    (x, y), *_ = rotate([(10.0, 0.0)], 90, (0, 0))
    assert (x, y) == pytest.approx((0, 10))  # from the right to the bottom
    with pytest.raises(MaskError, match="rotation is nan"):
        rotate([(0, 0)], float("nan"), (0, 0))


def test_ellipses_are_filled_up_to_their_edge():
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    distance = np.hypot((xs - 40) / 25, (ys - 30) / 12)
    found = fill_polygons([ellipse_polygon(40, 30, 25, 12)], SIZE)
    assert found[distance < 0.95].all()
    assert not found[distance > 1.05].any()


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([(0, 0), (1, 1)], "2 points; it needs 3"),
        ([(0, 0), (1, float("nan")), (2, 2)], r"\(1, nan\), nowhere near the image of 80 x 60"),
        ([(0, 0), (1, 1), (1e6, 2)], "nowhere near"),
        ([(0, 0), (1, 1), (10**400, 2)], "nowhere near"),
        ([(-500, -500), (800, 500)] * 10_000, "too long to draw"),
    ],
)
def test_points_that_cannot_be_drawn_are_refused(points, reason):
    with pytest.raises(MaskError, match=reason):
        fill_polygons([points], SIZE)


@pytest.mark.parametrize("seed", range(4))
def test_compressed_run_lengths_are_those_that_pycocotools_wrote(seed):
    mask = blobs(seed)
    text = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    np.testing.assert_array_equal(
        decode_run_lengths(parse_coco_run_lengths(text), mask.size).reshape(mask.T.shape).T, mask
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [("o", "end within a number"), ("0 0", "hold ' '"), ("é", "hold 'é'"), ("o" * 1_000_000, "hold 'o'")],
)
def test_damaged_strings_of_run_lengths_are_refused(text, reason):
    with pytest.raises(MaskError, match=reason):
        parse_coco_run_lengths(text)


@pytest.mark.parametrize("counts", [[5], [5, 6], [-1, 11], [2.5, 7.5], ["10"], [10**30], []])
def test_run_lengths_must_add_up(counts):
    with pytest.raises(MaskError, match="do not add up to the 10 pixels"):
        decode_run_lengths(counts, 10)
