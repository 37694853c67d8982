import numpy as np
import pytest
import torch
from make_data import FEW_CHANNELS, MATCHING_METHODS, METHODS, iou, scene, tiny_method, two_things
from PIL import Image

from kshot import ImageError, MaskError, ModelError, NotFittedError, Segmenter
from kshot.methods.config import ModelConfig
from kshot.methods.tiling import cut
from kshot.segmenter import choose_device


def tiny_segmenter(name="two-pass", image_size=96):
    config = ModelConfig(method="two-pass", backbone="test_resnet", image_size=image_size)
    return Segmenter(config, tiny_method(name, channels=FEW_CHANNELS), torch.device("cpu"))


@pytest.fixture(scope="module")
def pretrained():
    return Segmenter.from_pretrained()


def test_the_shipped_model_finds_the_disc_in_another_scene(pretrained):
    support, mask = scene(left=10)
    query, ground_truth = scene(left=60, seed=1)
    result = pretrained.fit(support, mask).predict(query)
    assert iou(result.mask, ground_truth) > 0.7
    assert result.probability[ground_truth].mean() > 0.8
    assert result.probability[~ground_truth].mean() < 0.2


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [(33, 57), (400, 400), (500, 375), (1, 1)])
def test_results_come_in_the_images_own_size(name, size):
    fitted = tiny_segmenter(name).fit(*scene())
    query = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    result = fitted.predict(query)
    assert result.mask.shape == result.labels.shape == result.probability.shape == size
    assert result.mask.dtype == bool
    assert result.probability.dtype == np.float32
    steps = {"first_pass", "second_pass", "base_map"}
    has = {
        "hsnet-both": {"first_pass"},
        "two-pass": steps,
        "two-pass-without-base": {"first_pass", "second_pass"},
    }
    for step in steps:
        value = getattr(result, step)
        assert (value is not None) == (step in has.get(name, set()))
        assert value is None or (value.shape == size and (value >= 0).all() and (value <= 1).all())


def test_supports_may_have_any_size_and_number():
    segmenter = tiny_segmenter()
    supports = [
        scene(width, height) for width, height in [(120, 90), (70, 200), (300, 80), (90, 90), (75, 70)]
    ]
    fitted = segmenter.fit([image for image, _ in supports], [mask for _, mask in supports])
    assert len(fitted.support_set["object"].shots) == 5
    assert fitted.predict(supports[1][0]).mask.shape == (200, 70)


def test_fit_encodes_the_supports_once_and_clones_share_the_networks(monkeypatch):
    segmenter = tiny_segmenter()
    calls = []

    def count(name):
        original = getattr(type(segmenter.method), name)
        counted = lambda self, x: calls.append(name) or original(self, x)  # noqa: E731
        monkeypatch.setattr(type(segmenter.method), name, counted)

    count("features")
    count("support_features")
    picture, mask = scene()
    assert segmenter.class_names == ()
    assert segmenter.fit(picture, mask) is segmenter
    clone = segmenter.clone().fit([picture, picture], [mask, mask])
    assert clone.method is segmenter.method
    assert [len(one.support_set["object"].shots) for one in (segmenter, clone)] == [1, 2]
    assert calls == ["support_features"] * 3
    clone.predict(picture)
    clone.predict(picture)
    assert calls[3:] == ["features"] * 2  # one for each query, none for the supports


def test_all_kinds_of_input_give_the_same_result(tmp_path, pretrained):
    picture, mask = scene()
    picture.save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    pixels = np.asarray(picture)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    images = [str(tmp_path / "image.png"), tmp_path / "image.png", picture, pixels, tensor, tensor / 255]
    masks = [str(tmp_path / "mask.png"), tmp_path / "mask.png", Image.fromarray(mask), mask]
    masks += [torch.from_numpy(mask.copy()), mask.astype(np.int64)]
    found = []
    for image, one_mask in zip(images, masks, strict=True):
        found.append(pretrained.fit(image, one_mask).predict(image).probability)
        found.append(pretrained.fit([image], [one_mask]).predict(image).probability)
    for probability in found[1:]:
        np.testing.assert_array_equal(probability, found[0])


def test_many_images_may_come_in_any_form(tmp_path, monkeypatch):
    segmenter = tiny_segmenter("prototype").fit(*scene())
    images = [scene(left=10 * n, seed=n)[0] for n in range(3)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    arrays = np.stack([np.asarray(image) for image in images])
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    expected = [segmenter.predict(image).probability for image in images]
    for many in (tmp_path, str(tmp_path), images, arrays, tensors, (image for image in images)):
        found = segmenter.predict(many)
        assert isinstance(found, list)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.probability, other)
    stream = segmenter.predict(images, stream=True)
    np.testing.assert_array_equal(next(stream).probability, expected[0])
    assert segmenter.predict([]) == []
    for wrong in (3, None, {"a": images[0]}):
        with pytest.raises(TypeError, match="it takes a path, a PIL image, an array or a tensor"):
            segmenter.predict(wrong)


def test_images_in_batches_have_the_results_of_single_ones(monkeypatch):
    segmenter = tiny_segmenter().fit(*scene())
    images = [scene(left=10 * n, seed=n)[0] for n in range(3)]
    expected = [segmenter.predict(image).probability for image in images]
    calls, original = [], type(segmenter.method).features
    counted = lambda self, x: calls.append(len(x)) or original(self, x)  # noqa: E731
    monkeypatch.setattr(type(segmenter.method), "features", counted)
    for one, other in zip(segmenter.predict(images, batch_size=2), expected, strict=True):
        np.testing.assert_allclose(one.probability, other, atol=1e-5)
    assert calls == [2, 1]
    with pytest.raises(ValueError, match="batch_size is 0"):
        segmenter.predict(images, batch_size=0)


def test_networks_and_supports_move_together():
    segmenter = tiny_segmenter().fit(*scene())
    assert segmenter.to("cpu") is segmenter
    assert segmenter.predict(scene()[0]).mask.shape == (90, 120)
    with pytest.raises(ModelError, match="Device 'toaster'"):
        segmenter.to("toaster")


@pytest.mark.parametrize("name", ["hsnet-both", "two-pass"])
def test_an_unusable_support_is_refused_and_changes_nothing(name):
    segmenter = tiny_segmenter(name)
    picture, mask = scene()
    fitted = segmenter.fit(picture, mask)
    with pytest.raises(MaskError, match="is empty"):
        fitted.fit(picture, np.zeros_like(mask))
    with pytest.raises(MaskError, match="its image is 120 x 90"):
        fitted.fit(picture, mask.T)
    with pytest.raises(MaskError, match="2 support images need as many masks, but there are 1"):
        fitted.fit([picture, picture], [mask])
    with pytest.raises(ImageError, match="no support images"):
        fitted.fit([], [])
    assert len(fitted.support_set["object"].shots) == 1
    assert np.isfinite(fitted.fit(picture, np.ones_like(mask)).predict(picture).probability).all()


def test_one_pixel_either_counts_or_is_refused_with_a_remedy():
    segmenter = tiny_segmenter(image_size=64)
    small, large = np.zeros((32, 32), bool), np.zeros((900, 1200), bool)
    small[15, 20] = large[451, 601] = True
    seen = segmenter.fit(np.zeros((32, 32, 3), np.uint8), small)
    assert np.isfinite(seen.predict(scene()[0]).probability).all()
    with pytest.raises(MaskError, match=r"its 1 pixels of 1200 x 900 vanish at 64 x 64\. Raise image_size"):
        segmenter.fit(np.zeros((900, 1200, 3), np.uint8), large)


def test_predict_before_fit_is_an_error_with_a_remedy():
    with pytest.raises(NotFittedError, match=r"call segmenter\.fit\(images, masks\) first"):
        tiny_segmenter().predict(scene()[0])


def test_image_size_can_be_changed_but_must_be_positive():
    assert Segmenter.from_pretrained(image_size=65).config.image_size == 65
    with pytest.raises(ModelError, match="image_size is 0"):
        Segmenter.from_pretrained(image_size=0)


def test_devices():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(ModelError, match="Device 'toaster' cannot be used here"):
        choose_device("toaster")


def test_several_classes_are_distinguished(pretrained):
    picture, labels = two_things()
    query, ground_truth = two_things(red=120, blue=30, seed=1)
    fitted = pretrained.fit({"disc": [(picture, labels == 1)], "square": [(picture, labels == 2)]})
    assert fitted.class_names == ("disc", "square")
    found = fitted.predict(query)
    assert found.labels.dtype == np.uint8
    for label in (1, 2):
        assert iou(found.labels == label, ground_truth == label) > 0.5
    assert found.probability.shape == (3, *ground_truth.shape)
    disc = found.class_probabilities[0]
    assert disc[ground_truth == 1].mean() > 0.7 > 0.4 > disc[ground_truth == 2].mean()
    # Each class has the probability that it has without the other.
    alone = pretrained.fit(picture, labels == 1).predict(query)
    np.testing.assert_array_equal(found.of_class("disc").probability, alone.probability)


def test_label_maps_are_the_same_as_masks():
    segmenter = tiny_segmenter()
    (first, labels), (second, others) = two_things(), scene(seed=3)
    query = two_things(red=100, blue=20, seed=1)[0]
    values = np.where(labels == 1, 7, np.where(labels == 2, 200, 0)).astype(np.uint8)
    values[:, -3:] = 255
    # The second support shows the one class only.
    maps = segmenter.fit(
        [first, second], [values, others * np.uint8(7)], classes={"square": 200, "disc": 7}
    ).predict(query)
    pairs = {"square": [(first, values == 200)], "disc": [(first, values == 7), (second, others)]}
    masks = segmenter.fit(pairs).predict(query)
    assert maps.class_names == masks.class_names == ("square", "disc")
    np.testing.assert_array_equal(maps.labels, masks.labels)
    np.testing.assert_array_equal(maps.class_probabilities, masks.class_probabilities)


def test_mistakes_with_classes_are_named():
    segmenter, (picture, labels) = tiny_segmenter(), two_things()
    with pytest.raises(MaskError, match="0 classes; a label map holds 1 to 254"):
        segmenter.fit({})
    with pytest.raises(ImageError, match="no support images of class 'cat'"):
        segmenter.fit({"cat": []})
    with pytest.raises(MaskError, match="dictionary of classes holds the masks"):
        segmenter.fit({"cat": [(picture, labels == 1)]}, [labels])
    with pytest.raises(MaskError, match="There are no masks"):
        segmenter.fit(picture)
    with pytest.raises(MaskError, match="2 support images need as many masks, but there are 1"):
        segmenter.fit([picture, picture], [labels], classes={"disc": 1, "square": 2})
    with pytest.raises(ImageError, match="no support images of class 'cat'"):
        segmenter.fit([picture], [labels], classes={"disc": 1, "square": 2, "cat": 3})
    with pytest.raises(MaskError, match=r"the value 2, which no class has: there are 0, 255 and 1 \(disc\)"):
        segmenter.fit([picture], [labels], classes={"disc": 1})
    for values in ({"disc": 1, "square": 1}, {"disc": 0, "square": 2}):
        with pytest.raises(MaskError, match="each needs its own, and 0 is the background"):
            segmenter.fit([picture], [labels], classes=values)


def lone_square(seed):
    """Draw the blue square of `two_things` without the disc."""
    picture, labels = two_things(seed=seed)
    pixels, empty = np.array(picture), np.asarray(two_things(seed=seed + 1)[0])
    pixels[labels == 1] = empty[:10, :10].mean(axis=(0, 1))
    return Image.fromarray(pixels), np.zeros_like(labels)


def test_an_image_with_an_empty_mask_is_a_negative(pretrained):
    picture, labels = two_things()
    query, ground_truth = two_things(red=120, blue=30, seed=1)
    negative = lone_square(seed=2)
    before = pretrained.fit(picture, labels == 1).predict(query).probability
    fitted = pretrained.fit([negative[0], picture], [negative[1], labels == 1])
    assert [len(part) for part in fitted.support_set["object"][:2]] == [1, 1]
    after = fitted.predict(query)
    assert after.probability[ground_truth == 2].mean() < 0.7 * before[ground_truth == 2].mean()
    assert iou(after.mask, ground_truth == 1) > 0.7
    assert (after.probability <= before + 1e-6).all()  # one more background can only take away
    by_name = pretrained.fit({"disc": [(picture, labels == 1), negative]})
    np.testing.assert_array_equal(by_name.predict(query).probability, after.probability)
    classes = {"disc": 1, "square": 2}
    maps = pretrained.fit([picture, negative[0]], [labels, negative[1]], classes=classes)
    assert [len(one.negatives) for one in maps.support_set.values()] == [1, 1]
    np.testing.assert_array_equal(maps.predict(query).of_class("disc").probability, after.probability)
    assert not pretrained.fit(picture, labels == 1).support_set["object"].negatives


def test_a_large_negative_is_encoded_in_tiles_as_queries_are():
    segmenter = tiny_segmenter("prototype")
    segmenter.tile = 64
    picture, mask = scene()
    fitted = segmenter.fit([picture, picture], [mask, np.zeros_like(mask)])
    assert len(fitted.support_set["object"].negatives) == len(cut((90, 120), 64)) > 1
    assert np.isfinite(fitted.predict(picture).probability).all()


@pytest.mark.parametrize("name", MATCHING_METHODS)
def test_networks_that_match_refuse_a_negative(name):
    picture, mask = scene()
    with pytest.raises(ModelError, match="of no use to the method two-pass"):
        tiny_segmenter(name).fit([picture, picture], [mask, mask & False])
