import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from scipy import ndimage

from kshot.errors import KshotError
from kshot.results import SegmentationResult
from kshot.results.instances import MIN_COMPONENT, InstanceOptions, row_run_lengths, run_lengths


def blobs(seed=0, size=(60, 80)):
    """Draw overlapping discs and squares: some with holes, some at the edges."""
    random, image = np.random.default_rng(seed), Image.new("1", size[::-1])
    draw = ImageDraw.Draw(image)
    for fill in (1, 1, 1, 1, 0, 1, 0, 1):
        x, y, radius = random.integers(-5, 80), random.integers(-5, 60), random.integers(3, 12)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    return np.asarray(image)


def filled(points, size):
    """Rasterise a polygon as LabelMe does."""
    image = Image.new("1", size[::-1])
    ImageDraw.Draw(image).polygon(points, outline=1, fill=1)
    return np.asarray(image)


def found_in(mask, probability=None, **options):
    """Return the instances of a mask (H, W)."""
    probability = mask.astype(np.float32) if probability is None else probability
    return SegmentationResult.of_one_class(mask, probability).instances(**options)


def place(instance, size):
    whole = np.zeros(size, dtype=bool)
    left, top, right, bottom = instance.box
    whole[top:bottom, left:right] = instance.mask
    return whole


def test_diagonal_neighbours_are_one_component_and_specks_are_left_out():
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:6, 3:7] = mask[6:10, 7:11] = True  # they touch at a corner
    mask[15:18, 20:25] = True  # 15 pixels
    mask[12:16, 12:16] = True  # 16 pixels
    probability = np.linspace(0, 1, 600, dtype=np.float32).reshape(mask.shape)
    large, small = found_in(mask, probability)
    assert MIN_COMPONENT == 16
    assert (large.id, large.box, large.area) == (1, (3, 2, 11, 10), 32)
    assert (small.id, small.box, small.area) == (2, (12, 12, 16, 16), 16)
    assert small.score == pytest.approx(probability[12:16, 12:16].mean(dtype=float))
    assert found_in(np.zeros((5, 5), dtype=bool)) == []
    assert len(found_in(mask, min_area=15)) == 3


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_are_those_of_pycocotools(seed):
    mask = blobs(seed)
    for component in found_in(mask):
        runs = {"size": list(mask.shape), "counts": run_lengths(component, mask.shape)}
        theirs = coco_mask.encode(np.asfortranarray(place(component, mask.shape), dtype=np.uint8))
        assert coco_mask.frPyObjects(runs, *mask.shape) == theirs
        assert component.area == coco_mask.area(theirs)
        left, top, right, bottom = component.box
        assert [left, top, right - left, bottom - top] == coco_mask.toBbox(theirs).tolist()
        rows = row_run_lengths(component, mask.shape)
        by_rows = np.repeat(np.arange(len(rows)) % 2 == 1, rows).reshape(mask.shape)
        np.testing.assert_array_equal(by_rows, place(component, mask.shape))


@pytest.mark.parametrize("seed", range(6))
def test_polygons_stay_within_half_a_pixel_of_what_they_outline(seed):
    mask = blobs(seed)
    for component in found_in(mask):
        points, whole = component.polygon, place(component, mask.shape)
        background = np.pad(~whole, 1, constant_values=True)
        has_hole = ndimage.label(background)[1] > 1
        assert (points is None) == has_hole
        if points is not None:
            drawn = filled(points, mask.shape)
            edge = np.pad(whole, 1)
            inner = edge[:-2, 1:-1] & edge[2:, 1:-1] & edge[1:-1, :-2] & edge[1:-1, 2:] & whole
            outer = edge[:-2, 1:-1] | edge[2:, 1:-1] | edge[1:-1, :-2] | edge[1:-1, 2:] | whole
            assert not (inner & ~drawn).any()
            assert not (drawn & ~outer).any()


def test_what_is_one_pixel_wide_is_no_polygon():
    mask = np.zeros((10, 40), dtype=bool)
    mask[4, 5:30] = True
    (component,) = found_in(mask)
    assert component.polygon is None


def discs(*circles, size=(80, 160)):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.any([(rows - y) ** 2 + (columns - x) ** 2 <= r**2 for x, y, r in circles], axis=0)


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (discs((40, 40, 20)), 1),
        (discs((40, 40, 20), (74, 40, 20)), 2),
        (discs((40, 40, 20), (66, 40, 8)), 2),
        (discs((30, 40, 15), (56, 40, 15), (82, 40, 15), (120, 40, 20)), 4),
        (discs(*((x, 40, 8) for x in range(10, 150))), 1),  # a rod
        (np.ones((40, 60), bool), 1),
        (np.eye(40, dtype=bool), 1),
    ],
    ids=["one", "two", "large and small", "chain and one", "rod", "all", "thin"],
)
def test_touching_items_are_split_at_their_necks(mask, count):
    items = found_in(mask, split=True)
    assert len(items) == count
    assert [one.id for one in items] == list(range(1, count + 1))
    together = np.sum([place(one, mask.shape) for one in items], axis=0)
    np.testing.assert_array_equal(together, mask)  # no pixel is lost, none is in two


def test_holes_are_rings_of_their_own_and_tolerance_saves_points():
    mask = discs((40, 40, 30)) & ~discs((40, 40, 12))
    exact, rough = found_in(mask, tolerance=0)[0], found_in(mask, tolerance=3)[0]
    assert exact.polygon is None
    assert [len(one.rings) for one in (exact, rough)] == [2, 2]
    outline, hole = exact.rings
    assert np.ptp(outline, axis=0).tolist() == [60, 60]
    assert np.ptp(hole, axis=0).tolist() == [26, 26]
    assert sum(map(len, rough.rings)) < sum(map(len, exact.rings)) / 5


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("split", {"split": True}),
        ("split=no, min_area=4", {"min_area": 4}),
        ("tolerance=0,split=true", {"split": True, "tolerance": 0}),
    ],
)
def test_options_are_read_from_text(text, options):
    assert InstanceOptions.parse(text) == InstanceOptions(**options)


@pytest.mark.parametrize("text", ["splits", "min_area=0", "tolerance=-1", "tolerance", "split=maybe"])
def test_wrong_options_are_named(text):
    with pytest.raises(KshotError, match=f"--instances is '{text}'"):
        InstanceOptions.parse(text)
