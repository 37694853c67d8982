import numpy as np
from PIL import Image

from kshot.training.regions import SHARES, draw_region, enlarge, find_superpixels


def quarters(width=120, height=80):
    """Four plain quarters; the upper left and the lower right are red, the others green and blue."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[: height // 2, : width // 2] = pixels[height // 2 :, width // 2 :] = (200, 30, 30)
    pixels[: height // 2, width // 2 :] = (30, 180, 40)
    pixels[height // 2 :, : width // 2] = (40, 40, 200)
    return Image.fromarray(pixels)


def red(image):
    pixels = np.asarray(image)
    return (pixels[..., 0] > 128) & (pixels[..., 1] < 90)


def test_superpixels_partition_the_image_and_know_their_looks():
    found = find_superpixels(quarters(), 100.0)
    assert found.labels.shape == (80, 120)
    assert abs(found.sizes.sum() - 1) < 1e-9
    assert len(found.features) == len(found.sizes) == found.labels.max() + 1
    large = np.flatnonzero(found.sizes > 0.1)  # the others are strips along the borders
    assert len(large) == 4
    for number in large:
        inside = found.labels == number
        assert red(quarters())[inside].mean() in (0, 1)
        np.testing.assert_allclose(found.sizes[number], inside.mean())
    a, b = found.borders.T
    assert (a < b).all()


def test_regions_are_one_colour_here_and_of_every_kind_in_time():
    image = quarters()
    found = find_superpixels(image, 100.0)
    random = np.random.default_rng(0)
    regions = [draw_region(found, random) for _ in range(200)]
    shares = [float(region.mean()) for region in regions if region is not None]
    assert min(shares) < 0.3
    assert max(shares) > 0.4
    both = [region for region in regions if region is not None and region.mean() > 0.4]
    assert all((red(image) == region).mean() > 0.85 for region in both)  # two quarters that look alike


def test_regions_inside_an_object_stay_in_it():
    found = find_superpixels(quarters(), 100.0)
    inside = np.zeros(found.labels.shape, dtype=bool)
    inside[:, :60] = True
    random = np.random.default_rng(1)
    drawn = [draw_region(found, random, inside) for _ in range(50)]
    assert any(region is not None for region in drawn)
    assert not any((region & ~inside).any() for region in drawn if region is not None)


def test_what_is_too_large_or_too_small_is_no_region():
    plain = find_superpixels(Image.new("RGB", (60, 60), (10, 120, 30)), 100.0)
    assert all(draw_region(plain, np.random.default_rng(n)) is None for n in range(10))  # all of the image
    found = find_superpixels(quarters(), 100.0)
    regions = (draw_region(found, np.random.default_rng(n)) for n in range(50))
    assert all(SHARES[0] <= region.mean() <= SHARES[1] for region in regions if region is not None)


def test_large_images_are_cut_small_and_regions_brought_back():
    image = quarters(800, 500)
    found = find_superpixels(image, 100.0)
    assert found.labels.shape == (120, 192)
    region = found.labels == found.labels[10, 10]
    mask = enlarge(region, (500, 800))
    assert mask.shape == (500, 800)
    assert mask.dtype == np.uint8
    assert abs(mask.mean() - region.mean()) < 0.01
