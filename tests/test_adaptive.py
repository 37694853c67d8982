import pytest
import torch
from make_data import tiny_method

from kshot.methods.adaptive import Adaptive, halve, is_known, make_view
from kshot.types import Support

SIZE = 129


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return Adaptive(tiny_method("two-pass")).eval()


@pytest.fixture(scope="module")
def scene():
    """Give an image of a bright square on a dark texture, and its mask."""
    torch.manual_seed(0)
    image = 0.3 * torch.rand(1, 3, SIZE, SIZE)
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 30:70, 20:70] = 1
    return image + 0.6 * mask, mask


def support_of(method, image, mask):
    with torch.inference_mode():
        return Support(method.support_features(image), mask)


def test_finds_a_colour_that_an_untrained_network_does_not(method, scene):
    image, mask = scene
    support = support_of(method, image, mask)
    with torch.inference_mode():
        found = method.segment(method.features(image.flip(-1)), [support], (SIZE, SIZE))
    expected = mask.flip(-1)[:, 0] > 0
    assert (found.mask & expected).sum() / (found.mask | expected).sum() > 0.85
    assert found.probability.shape == (1, SIZE, SIZE)
    assert found.first_pass is not None


def test_features_of_a_query_serve_as_those_of_a_support(method, scene):
    image, mask = scene
    with torch.inference_mode():
        supports = [Support(extract(image), mask) for extract in (method.features, method.support_features)]
        query = method.features(image.flip(-1))
        first, second = (method.segment(query, [one], (SIZE, SIZE)).probability for one in supports)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)


def test_adapting_before_or_in_segment_is_the_same(method, scene):
    image, mask = scene
    support = support_of(method, image, mask)
    with torch.inference_mode():
        query = method.features(image)
        expected = method.segment(query, [support], (50, 60))
        found = method.segment(query, [support], (50, 60), adapted=method.adapt([support]))
    assert torch.equal(found.probability, expected.probability)


def test_an_image_without_the_object_teaches_its_colours(method, scene):
    image, mask = scene
    support = support_of(method, image, mask)
    other = 0.3 * torch.rand(1, 3, SIZE, SIZE) + 0.6 * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    negative = support_of(method, other, torch.zeros_like(mask))
    with torch.inference_mode():
        query = method.features(other)
        without = method.segment(query, [support], (SIZE, SIZE)).probability.mean()
        with_negative = method.segment(query, [support], (SIZE, SIZE), [negative]).probability.mean()
    assert with_negative < without


def test_a_mask_of_the_whole_image_leaves_the_network(method, scene):
    image, mask = scene
    support = support_of(method, image, torch.ones_like(mask))
    with torch.inference_mode():
        adapted = method.adapt([support])
        found = method.segment(method.features(image), [support], (SIZE, SIZE), adapted=adapted)
    assert adapted.classifier is None
    assert torch.isfinite(found.probability).all()


def test_matching_has_half_the_size_on_a_grid_that_dilation_keeps():
    assert halve(torch.rand(1, 3, 513, 513)).shape[-1] == 257
    assert all(halve(torch.rand(1, 3, side, side)).shape[-1] % 32 == 1 for side in (65, 100, 321, 640))


def test_a_view_is_mirrored_and_smaller():
    mask = torch.zeros(1, 1, 100, 100)
    mask[..., 40:60, 30:50] = 1
    view = make_view(mask)
    assert view.shape == mask.shape
    assert float(view.sum()) == pytest.approx(0.64 * 400, rel=0.1)
    assert view[0, 0, 50, 58] == 1
    assert view[0, 0, 50, 38] == 0


def test_what_looks_like_the_object_far_from_all_labels_is_unknown():
    mask, similarity = torch.zeros(1, 1, 256, 256), -torch.ones(1, 1, 16, 16)
    mask[..., 10:30, 10:30] = 1
    similarity[..., 12:, 12:] = 1
    similarity[..., :2, :2] = 1
    known = is_known(mask, similarity)[0, 0]
    assert known[5:35, 5:35].all()
    assert known[100:180, 100:180].all()
    assert not known[220:, 220:].any()
