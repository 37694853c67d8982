import pytest
import torch

from kshot.methods.pixel_classifier import PixelClassifier, choose, logistic
from kshot.models.pixel_features import GRID, PixelFeatures, filters

EVERYWHERE = torch.ones(1, 1, GRID, GRID, dtype=torch.bool)


def describe(image):
    """Describe an image (1, 3, H, W) with deep features that say nothing."""
    return PixelFeatures(filters(image), (torch.ones(1, 4, 8, 8) / 2, torch.ones(1, 4, 4, 4) / 2))


def half(left, right):
    """Make an image of two textures, side by side, and the mask of the left one."""
    image = torch.cat([left, right], dim=-1)
    mask = torch.zeros(1, 1, *image.shape[-2:])
    mask[..., : left.shape[-1]] = 1
    return image, mask


def grey(level, width=128):
    return (torch.full((1, 3, 256, width), level) + 0.02 * torch.rand(1, 3, 256, width)).clamp(0, 1)


def stripes(width=128):
    return torch.where(torch.arange(256) % 8 < 4, 0.3, 0.7)[None, None, :, None].expand(1, 3, 256, width)


def accuracy(classifier, image, mask):
    found = classifier.logits(describe(image))[0, 0] > 0
    return float((found == (torch.nn.functional.adaptive_avg_pool2d(mask, GRID)[0, 0] > 0.5)).float().mean())


@pytest.mark.parametrize(("left", "right"), [(grey(0.2), grey(0.8)), (stripes(), grey(0.5))])
def test_tells_colours_and_textures_apart(left, right):
    image, mask = half(left, right)
    classifier = PixelClassifier.fit([describe(image)], [mask], [EVERYWHERE])
    assert accuracy(classifier, image, mask) > 0.97
    turned, its_mask = half(right, left)
    assert accuracy(classifier, turned, 1 - its_mask) > 0.97


def test_learns_what_no_plane_separates():
    image = torch.cat([grey(0.15, 64), grey(0.5, 128), grey(0.85, 64)], dim=-1)
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 64:192] = 1
    classifier = PixelClassifier.fit([describe(image)], [mask], [EVERYWHERE])
    assert accuracy(classifier, image, mask) > 0.93


def test_an_image_unlike_the_support_is_strange_and_its_logits_are_small():
    image, mask = half(grey(0.2), grey(0.4))
    classifier = PixelClassifier.fit([describe(image)], [mask], [EVERYWHERE])
    other = torch.rand(1, 3, 256, 256)
    assert classifier.strangeness(describe(other)) > 20 * classifier.strangeness(describe(image))
    certain = classifier._replace(factor=1e6 * classifier.factor)
    shares = [
        classifier.logits(describe(one)).abs().mean() / certain.logits(describe(one)).abs().mean()
        for one in (image, other)
    ]
    assert shares[1] < shares[0] < 1


def test_a_batch_is_classified_image_by_image():
    image, mask = half(grey(0.2), grey(0.4))
    classifier = PixelClassifier.fit([describe(image)], [mask], [EVERYWHERE])
    first, second = describe(image), describe(torch.rand(1, 3, 256, 256))
    both = PixelFeatures(
        torch.cat([first.filters, second.filters]),
        tuple(torch.cat(taps) for taps in zip(first.deep, second.deep, strict=True)),
    )
    expected = torch.cat([classifier.logits(first), classifier.logits(second)])
    torch.testing.assert_close(classifier.logits(both), expected, atol=1e-4, rtol=1e-4)


def test_what_is_unknown_is_not_learned():
    image, mask = half(grey(0.2), grey(0.8))
    partial = mask.clone()
    partial[..., 64:] = 0  # half of the object is not labelled
    known = EVERYWHERE.clone()
    known[..., 64:128] = False
    classifier = PixelClassifier.fit([describe(image)], [partial], [known])
    assert accuracy(classifier, image, mask) > 0.97


def test_one_class_alone_cannot_be_learned():
    image, mask = half(grey(0.2), grey(0.4))
    for one in (torch.ones_like(mask), torch.zeros_like(mask)):
        assert PixelClassifier.fit([describe(image)], [one], [EVERYWHERE]) is None


def test_the_same_support_set_gives_the_same_classifier():
    image, mask = half(grey(0.2), grey(0.4))
    first, second = (PixelClassifier.fit([describe(image)], [mask], [EVERYWHERE]) for _ in range(2))
    assert torch.equal(first.logits(describe(image)), second.logits(describe(image)))


def test_the_regression_is_at_a_minimum():
    inputs = torch.randn(500, 3)
    target = (inputs @ torch.tensor([2.0, -1.0, 0.0]) + 0.3 * torch.randn(500) > 0).float()
    weight = torch.full((500,), 1 / 500)
    weights, bias, factor = logistic(inputs, target, weight)
    error = weight * ((inputs @ weights + bias).sigmoid() - target)
    assert (inputs.T @ error + 1e-3 * weights).abs().max() < 1e-3
    probability = (inputs @ weights + bias).sigmoid()
    hessian = (inputs * (weight * probability * (1 - probability))[:, None]).T @ inputs + 1e-3 * torch.eye(3)
    torch.testing.assert_close(factor @ factor.T, hessian, atol=1e-5, rtol=1e-4)


def test_small_objects_are_chosen():
    labels = torch.zeros(1000)
    labels[7] = 0.06
    assert 7 in choose(labels, torch.ones(1000, dtype=torch.bool))
