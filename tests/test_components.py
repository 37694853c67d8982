import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from scipy import ndimage

from kshot.annotations.components import MIN_COMPONENT, connected_components, outline, run_lengths


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


def place(component, size):
    whole = np.zeros(size, dtype=bool)
    left, top, width, height = component.box
    whole[top : top + height, left : left + width] = component.mask
    return whole


def test_diagonal_neighbours_are_one_component_and_specks_are_left_out():
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:6, 3:7] = mask[6:10, 7:11] = True  # they touch at a corner
    mask[15:18, 20:25] = True  # 15 pixels
    mask[12:16, 12:16] = True  # 16 pixels
    probability = np.linspace(0, 1, 600, dtype=np.float32).reshape(mask.shape)
    large, small = connected_components(mask, probability)
    assert MIN_COMPONENT == 16
    assert (large.box, large.area) == ((3, 2, 8, 8), 32)
    assert (small.box, small.area) == ((12, 12, 4, 4), 16)
    assert small.score == pytest.approx(probability[12:16, 12:16].mean(dtype=float))
    assert list(connected_components(np.zeros((5, 5), dtype=bool), probability[:5, :5])) == []


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_are_those_of_pycocotools(seed):
    mask = blobs(seed)
    for component in connected_components(mask, mask.astype(np.float32)):
        runs = {"size": list(mask.shape), "counts": run_lengths(component, mask.shape)}
        theirs = coco_mask.encode(np.asfortranarray(place(component, mask.shape), dtype=np.uint8))
        assert coco_mask.frPyObjects(runs, *mask.shape) == theirs
        assert component.area == coco_mask.area(theirs)
        assert list(component.box) == coco_mask.toBbox(theirs).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_polygons_stay_within_half_a_pixel_of_what_they_outline(seed):
    mask = blobs(seed)
    for component in connected_components(mask, mask.astype(np.float32)):
        points, whole = outline(component), place(component, mask.shape)
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
    (component,) = connected_components(mask, mask.astype(np.float32))
    assert outline(component) is None
