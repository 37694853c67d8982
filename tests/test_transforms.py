import numpy as np
import pytest
import torch
from PIL import Image

from kshot.transforms import IMAGENET_MEAN, Resize, nearest


def picture(height=30, width=60):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_squash_ignores_the_aspect():
    red = Image.fromarray(np.full((40, 90, 3), (255, 0, 51), dtype=np.uint8))
    tensor = Resize(16).image(red)
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor[0, :, 3, 3].tolist() == pytest.approx([1, 0, 0.2])
    mask = Resize(16).support_mask(np.ones((40, 90), bool))
    assert mask.shape == (1, 1, 16, 16)
    assert (mask == 1).all()


@pytest.mark.parametrize("size", [33, 257, 400])
def test_masks_are_resized_as_torch_does(size):
    for length in (*range(1, 40), 257, 333, 375, 500, 514, 1000, 4001):
        values = torch.arange(length, dtype=torch.float32)[None, None, :, None].expand(1, 1, length, 2)
        expected = torch.nn.functional.interpolate(values, (size, 2), mode="nearest")[0, 0, :, 0]
        np.testing.assert_array_equal(nearest(length, size), expected.numpy())


def test_pad_keeps_the_aspect_and_fills_with_the_mean():
    image = Resize(40, "pad").image(picture())
    assert image.shape == (1, 3, 40, 40)
    expected = np.asarray(picture().resize((40, 20), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(image[0, :, :20].permute(1, 2, 0), expected, atol=1e-6)
    assert (image[0, :, 20:] == torch.tensor(IMAGENET_MEAN).view(3, 1, 1)).all()


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_masks_are_resized_by_nearest_neighbour_with_the_padding_unknown(fit):
    ground_truth = np.random.default_rng(0).choice(np.array([0, 1, 255], dtype=np.uint8), (30, 60))
    framed = Resize(40, fit).mask(ground_truth)
    height = 40 if fit == "squash" else 20
    for y in range(height):
        for x in range(40):
            assert framed[y, x] == ground_truth[y * 30 // height, x * 60 // 40]
    assert (framed[height:] == 255).all()
    mask = Resize(40, fit).support_mask(ground_truth)
    np.testing.assert_array_equal(mask[0, 0] == 1, framed == 1)
    assert mask.shape == (1, 1, 40, 40)


@pytest.mark.parametrize(("height", "width"), [(30, 60), (60, 30), (1, 500)])
def test_a_mask_comes_back_onto_the_image(height, width):
    pad, squash = Resize(40, "pad"), Resize(40)
    assert squash.output_size(height, width) == (height, width)
    longer = max(height, width)
    assert pad.output_size(height, width) == (longer, longer)
    assert pad.crop(np.ones((longer, longer), dtype=bool), height, width).shape == (height, width)
    assert pad.image(picture(height, width)).shape == (1, 3, 40, 40)
