import numpy as np
import pytest
import torch
from PIL import Image

from kshot.io.images import image_tensor
from kshot.transforms import IMAGENET_MEAN, Frame


def picture(height=30, width=60):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_squash_is_what_the_segmenter_does():
    torch.testing.assert_close(Frame(40, "squash").image(picture())[0], image_tensor(picture(), 40))


def test_pad_keeps_the_aspect_and_fills_with_the_mean():
    image = Frame(40, "pad").image(picture())
    assert image.shape == (1, 3, 40, 40)
    expected = np.asarray(picture().resize((40, 20), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(image[0, :, :20].permute(1, 2, 0), expected, atol=1e-6)
    assert (image[0, :, 20:] == torch.tensor(IMAGENET_MEAN).view(3, 1, 1)).all()


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_truth_is_taken_by_nearest_neighbour_with_the_padding_unknown(fit):
    ground_truth = np.random.default_rng(0).choice(np.array([0, 1, 255], dtype=np.uint8), (30, 60))
    framed = Frame(40, fit).ground_truth(ground_truth)
    height = 40 if fit == "squash" else 20
    for y in range(height):
        for x in range(40):
            assert framed[y, x] == ground_truth[y * 30 // height, x * 60 // 40]
    assert (framed[height:] == 255).all()
    mask = Frame(40, fit).support_mask(ground_truth)
    np.testing.assert_array_equal(mask[0, 0] == 1, framed == 1)
    assert mask.shape == (1, 1, 40, 40)


@pytest.mark.parametrize(("height", "width"), [(30, 60), (60, 30), (1, 500)])
def test_an_answer_comes_back_onto_the_photograph(height, width):
    pad, squash = Frame(40, "pad"), Frame(40, "squash")
    assert squash.answer_size(height, width) == (height, width)
    longer = max(height, width)
    assert pad.answer_size(height, width) == (longer, longer)
    assert pad.crop(np.ones((longer, longer), dtype=bool), height, width).shape == (height, width)
    assert pad.image(picture(height, width)).shape == (1, 3, 40, 40)
