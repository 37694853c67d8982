import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from kshot.models.backbones import FeaturePyramid
from kshot.models.pixel_features import GRID, NUM_FILTERS, blur, filters, pixel_features, to_lab


def test_lab_is_that_of_scikit_image():
    colours = torch.rand(1, 3, 16, 16)
    colours[..., 0, :3] = torch.eye(3)
    colours[..., 1, :2] = torch.tensor([0.0, 1.0])
    expected = rgb2lab(colours[0].permute(1, 2, 0).numpy())
    torch.testing.assert_close(
        to_lab(colours)[0].permute(1, 2, 0), torch.from_numpy(expected).float(), atol=2e-2, rtol=0
    )


@pytest.mark.parametrize("sigma", [0.7, 1.5, 3.0])
def test_blur_is_that_of_scipy(sigma):
    image = torch.rand(1, 2, 40, 50)
    expected = gaussian_filter(image[0].numpy(), sigma, axes=(1, 2), mode="mirror", radius=round(3 * sigma))
    torch.testing.assert_close(blur(image, sigma)[0], torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_an_even_image_has_its_colour_and_nothing_else():
    found = filters(torch.full((1, 3, 60, 80), 0.5)).view(1, -1, 7, GRID, GRID)
    lightness = 53.39 / 50
    torch.testing.assert_close(found[:, :, 0], torch.full_like(found[:, :, 0], lightness), atol=1e-3, rtol=0)
    assert found[:, :, 3:].abs().max() < 0.02


def test_a_line_has_a_large_negative_eigenvalue_across_it():
    image = torch.zeros(1, 3, 512, 512)
    image[..., 250:254, :] = 1
    found = filters(image).view(-1, 7, GRID, GRID)
    smallest = found[1, 5]  # at the scale of the line's width
    assert smallest.mean(dim=1).argmin() == 126 or smallest.mean(dim=1).argmin() == 125
    assert smallest[125:127].mean() < -0.1
    assert abs(float(found[1, 4, 126].mean())) < 0.02


def test_features_of_a_batch_are_those_of_its_images():
    images = torch.rand(2, 3, 65, 65)
    taps = torch.rand(2, 8, 9, 9)
    together = pixel_features(images, FeaturePyramid(((taps,),), None))
    alone = pixel_features(images[1:], FeaturePyramid(((taps[1:],),), None))
    assert together.filters.shape == (2, NUM_FILTERS, GRID, GRID)
    torch.testing.assert_close(together.filters[1:], alone.filters)
    torch.testing.assert_close(alone.deep[0].norm(dim=1), torch.ones(1, 9, 9), atol=1e-3, rtol=0)
    assert torch.isfinite(together.filters).all()
