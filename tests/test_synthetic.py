import numpy as np
import pytest
from PIL import Image

from kshot.training.synthetic import Item, draw_items, draw_mosaic, draw_thin, patch, round_item

SIZE = 96


def plain(colour):
    return Image.new("RGB", (SIZE, SIZE), colour)


RED, GREEN, BLUE = (200, 20, 20), (20, 180, 30), (20, 30, 200)


def near(shown, colour, distance=60):
    return np.abs(np.asarray(shown.image).astype(int) - colour).max(axis=-1) < distance


@pytest.mark.parametrize("seed", range(5))
def test_a_mosaics_class_is_its_first_material_in_both_images(seed):
    pair = draw_mosaic([plain(RED), plain(GREEN), plain(BLUE)], np.random.default_rng(seed), SIZE)
    for shown in (pair.query, pair.support):
        assert shown.image.size == (SIZE, SIZE)
        np.testing.assert_array_equal(near(shown, RED), shown.mask == 1)
    assert (pair.query.mask != pair.support.mask).any()


def test_thin_structures_are_marked_where_they_are_drawn():
    for seed in range(40):
        pair = draw_thin(plain((128, 128, 128)), np.random.default_rng(seed), SIZE)
        for shown in (pair.query, pair.support):
            assert set(np.unique(shown.mask)) <= {0, 1}
            changed = np.abs(np.asarray(shown.image).astype(int) - 128).max(axis=-1) > 25
            if not changed.any():
                continue  # a stroke of the ground's own colour
            marked = shown.mask == 1
            inside = changed[marked].mean() if marked.any() else 0.0
            outside = changed[~marked].mean()
            assert inside > outside or shown.mask.mean() > 0.5  # or the class is what lies between


def test_every_item_of_the_class_is_marked_in_the_query_and_other_items_are_not():
    red = Item(plain(RED), np.ones((SIZE, SIZE), dtype=bool))
    blue = Item(plain(BLUE), np.ones((SIZE, SIZE), dtype=bool))
    partly = 0
    for seed in range(20):
        pair = draw_items(plain(GREEN), red, blue, np.random.default_rng(seed), SIZE)
        assert set(np.unique(pair.query.mask)) <= {0, 1}
        is_red = near(pair.query, RED)
        assert is_red[pair.query.mask == 1].mean() > 0.8  # edges are blended
        assert not (near(pair.query, BLUE) & (pair.query.mask == 1)).any()
        partly += (pair.support.mask == 255).any()
        assert (pair.support.mask == 1).any()
    assert 3 < partly < 17  # in about half of the support images most items are unlabelled


def test_what_is_drawn_depends_on_the_generator_alone():
    pairs = [draw_thin(plain(GREEN), np.random.default_rng(3), SIZE) for _ in range(2)]
    np.testing.assert_array_equal(pairs[0].query.image, pairs[1].query.image)
    np.testing.assert_array_equal(pairs[0].support.mask, pairs[1].support.mask)


def test_materials_and_round_items():
    random = np.random.default_rng(0)
    assert patch(plain(RED).resize((30, 500)), random, 50).size == (50, 50)
    item = round_item(plain(RED), random)
    assert item.image.size == item.shape.shape[::-1]
    assert 0.2 < item.shape.mean() < 0.9
    assert not item.shape[[0, -1]].any()
