import numpy as np
import pytest
from make_data import iou, scene, two_things
from PIL import Image

from kshot import ImageError, Segmenter
from kshot.methods.tiling import OVERLAP, around, cut, tile_for

SIZES = [(1, 1), (40, 40), (64, 64), (65, 64), (100, 230), (333, 77), (1000, 129)]


@pytest.mark.parametrize("size", SIZES)
def test_windows_cover_an_image_and_their_weights_sum_to_1(size):
    total, windows = np.zeros(size), list(cut(size, 64))
    for window in windows:
        assert total[window.place].shape == window.weights.shape
        assert max(window.weights.shape) <= 64
        assert (window.weights > 0).all()
        total[window.place] += window.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    if max(size) <= 64:
        assert len(windows) == 1


def test_windows_are_as_few_as_the_overlap_allows():
    """Neighbours share a quarter of a tile, and no more than is needed to come out even."""
    for length in range(65, 400):
        starts = [window.left for window in cut((10, length), 64)]
        assert starts[0] == 0
        assert starts[-1] == length - 64
        steps = np.diff(starts)
        assert steps.max() <= 64 * (1 - OVERLAP)
        assert len(starts) == 1 + np.ceil((length - 64) / (64 * (1 - OVERLAP)))


def test_windows_fade_out_towards_neighbours_only():
    first, second = cut((64, 100), 64)
    assert (first.weights[:, :36] == 1).all()  # there it is alone
    assert (second.weights[:, -36:] == 1).all()
    assert (np.diff(first.weights[0, 36:]) < 0).all()
    assert first.box == (0, 0, 64, 64)
    assert second.box == (36, 0, 100, 64)


def test_a_supports_window_lies_around_its_object():
    mask = np.zeros((200, 300), bool)
    mask[150:170, 40:60] = True
    assert around(mask, None) == (0, 0, 300, 200)
    assert around(mask, 64) == (18, 128, 82, 192)
    assert around(mask, 100) == (0, 100, 100, 200)  # moved inside
    assert around(mask, 250) == (0, 0, 250, 200)
    assert around(mask, 400) == (0, 0, 300, 200)


def test_a_window_shows_part_of_an_object_that_is_larger():
    ring = np.zeros((300, 300), bool)
    ring[20:280, 20:280] = True
    ring[40:260, 40:260] = False
    left, top, right, bottom = around(ring, 64)
    assert (right - left, bottom - top) == (64, 64)
    assert ring[top:bottom, left:right].mean() > 0.1


def wide_scene(places, seed=0):
    """A wide image with small discs at some places, and where they are."""
    size = (90, 120 * 6)
    pixels = np.random.default_rng(seed).integers(0, 60, (*size, 3), dtype=np.uint8)
    pixels[..., 1] += 80
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for place in places:
        mask |= (rows - 45) ** 2 + (columns - place) ** 2 < 15**2
    pixels[mask] = (220, 40, 30)
    return Image.fromarray(pixels), mask


@pytest.fixture(scope="module")
def models():
    return {tile: Segmenter.from_pretrained(tile=tile, image_size=193) for tile in (None, 90)}


def test_small_objects_are_found_better_in_tiles(models):
    image, mask = wide_scene([80])
    query, ground_truth = wide_scene([30, 200, 370, 470, 660], seed=1)
    found = {
        tile: iou(model.fit(image, mask).predict(query).mask, ground_truth) for tile, model in models.items()
    }
    assert found[90] > found[None] + 0.2


def test_objects_under_seams_are_found(models):
    """A thing under a seam is found as well as one in the middle of a tile."""
    model = models[90].fit(*wide_scene([80]))
    probability = {}
    for place in range(200, 290, 12):
        query, ground_truth = wide_scene([place], seed=2)
        probability[place] = float(model.predict(query).probability[ground_truth].mean())
    assert min(probability.values()) > 0.75


def test_an_image_that_fits_one_tile_is_not_cut(models):
    image, mask = scene(width=90)
    tiled, untiled = (models[tile].fit(image, mask).predict(image) for tile in (90, None))
    np.testing.assert_array_equal(tiled.probability, untiled.probability)
    np.testing.assert_array_equal(tiled.mask, untiled.mask)


def test_several_classes_in_tiles_encode_each_window_once(models, monkeypatch):
    image, labels = two_things()
    fitted = models[90].fit({"disc": [(image, labels == 1)], "square": [(image, labels == 2)]})
    read, original = [], Segmenter.encode_query
    counted = lambda self, part: read.append(part.size) or original(self, part)  # noqa: E731
    monkeypatch.setattr(Segmenter, "encode_query", counted)
    found = fitted.predict(image)
    assert read == [(90, 90)] * 3
    for label in (1, 2):
        assert iou(found.labels == label, labels == label) > 0.6


def test_tiles_that_are_too_small_are_refused():
    with pytest.raises(ImageError, match="tile is 32; it must be at least 33 pixels"):
        Segmenter.from_pretrained(tile=32)
    with pytest.raises(ImageError, match="long_side is 80, but one tile is 90 pixels"):
        Segmenter.from_pretrained(tile=90, long_side=80)


def test_a_long_side_sets_the_scale_of_larger_images_only():
    assert tile_for((3000, 4000), 400, 1000) == 1600
    assert tile_for((4000, 300), 400, 1000) == 1600
    assert tile_for((750, 1000), 400, 1000) == 400
    assert tile_for((20, 30), 400, 1000) == 400
    assert tile_for((3000, 4000), 400, None) == 400
    assert tile_for((3000, 4000), None, None) is None


def test_with_a_long_side_an_enlarged_image_gets_the_same_mask_enlarged():
    """The oracle: the image itself, in tiles of the same part of it."""
    image, mask = wide_scene([80])
    query, _ = wide_scene([30, 200, 370, 470, 660], seed=1)
    three = (query.width * 3, query.height * 3)
    small = Segmenter.from_pretrained(tile=90, image_size=193).fit(image, mask)
    large = Segmenter.from_pretrained(tile=90, long_side=720, image_size=193).fit(
        image.resize(three, Image.Resampling.BICUBIC), np.kron(mask, np.ones((3, 3))) > 0
    )
    result = large.predict(query.resize(three, Image.Resampling.BICUBIC))
    assert result.mask.shape == (270, 2160)
    assert iou(result.mask[1::3, 1::3], small.predict(query).mask) > 0.9


def test_with_a_long_side_windows_have_the_networks_size_by_default():
    assert Segmenter.from_pretrained(long_side=2000, image_size=193).tile == 193
    assert Segmenter.from_pretrained(long_side=2000, tile=300, image_size=193).tile == 300
