import os
import time

import pytest
import torch
from make_data import random_pyramid

from kshot.models.feature_cache import FeatureCache
from kshot.training.feature_files import (
    STALE_SECONDS,
    DiskBudget,
    DiskStorage,
    ImageKey,
    features_to_pyramid,
    pyramid_to_features,
)

GB = 2**30


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "photograph.jpg"
    path.write_bytes(b"a photograph")
    return path


def image():
    return torch.arange(12.0).view(1, 3, 2, 2)


def compute(key):
    tensor = image().flip(-1) if key.flipped else image()
    return {"double": 2 * tensor, "mean": tensor.mean(dim=1, keepdim=True)}


def cache_in(folder, limit=GB, settings="weights", compute=compute):
    return FeatureCache(compute, DiskStorage(settings, DiskBudget(folder, limit)))


def test_what_a_killed_run_left_is_no_part_of_a_cache_and_goes_away(tmp_path):
    old, young = tmp_path / "one" / ".kshot-1.safetensors", tmp_path / "one" / ".kshot-2.safetensors"
    old.parent.mkdir()
    for path, age in ((old, 2 * STALE_SECONDS), (young, 0)):
        path.write_bytes(bytes(100))
        os.utime(path, (time.time() - age,) * 2)
    assert DiskBudget(tmp_path, 50).left == 50
    assert list(old.parent.iterdir()) == [young]  # another run's, perhaps


def refuse(key):
    raise AssertionError("this was to come from the cache")


def test_features_are_computed_once_even_by_another_run(tmp_path, path):
    cache = cache_in(tmp_path / "cache")
    first = cache.get(ImageKey(path))
    torch.testing.assert_close(first["double"], 2 * image().half())
    for again in (cache, cache_in(tmp_path / "cache", compute=refuse)):
        found = again.get(ImageKey(path))
        assert found.keys() == first.keys()
        assert all(torch.equal(found[name], first[name]) for name in first)
    assert cache.num_computed == 1


def test_features_outlive_a_moved_dataset(tmp_path, path):
    cache_in(tmp_path / "cache").get(ImageKey(path))
    moved = tmp_path / "elsewhere.jpg"
    moved.write_bytes(path.read_bytes())
    os.utime(moved, (0, 0))
    cache_in(tmp_path / "cache", compute=refuse).get(ImageKey(moved))


def test_mirrored_features_are_those_of_the_mirrored_image(tmp_path, path):
    cache = cache_in(tmp_path / "cache")
    cache.get(ImageKey(path))
    mirrored = cache.get(ImageKey(path, True))
    torch.testing.assert_close(mirrored["double"], 2 * image().flip(-1).half())
    assert torch.equal(cache.get(ImageKey(path, True))["double"], mirrored["double"])
    assert cache.num_computed == 2


def test_other_weights_and_changed_images_are_computed_again(tmp_path, path):
    cache_in(tmp_path / "cache").get(ImageKey(path))
    other = cache_in(tmp_path / "cache", settings="other weights")
    other.get(ImageKey(path))
    assert other.num_computed == 1
    path.write_bytes(b"another photograph")
    same = cache_in(tmp_path / "cache")
    same.get(ImageKey(path))
    assert same.num_computed == 1


def test_a_full_cache_is_correct_and_grows_no_more(tmp_path, path):
    small = cache_in(tmp_path / "cache", limit=40)  # one image's features take 32 bytes
    small.get(ImageKey(path))
    for _ in range(2):
        mirrored = small.get(ImageKey(path, True))
        torch.testing.assert_close(mirrored["double"], 2 * image().flip(-1).half())
    assert small.num_computed == 3
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    # What an earlier run has left counts too; files are larger than their tensors.
    assert DiskBudget(tmp_path / "cache", 100).left < 100 - 32


def test_a_damaged_file_is_made_again(tmp_path, path):
    cache = cache_in(tmp_path / "cache")
    first = cache.get(ImageKey(path))
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    again = cache.get(ImageKey(path))
    assert torch.equal(again["double"], first["double"])
    assert torch.equal(cache.get(ImageKey(path))["double"], first["double"])
    assert cache.num_computed == 2


def test_a_pyramid_survives_being_taken_apart():
    pyramid = random_pyramid(taps=(2, 12, 1))
    found = features_to_pyramid(pyramid_to_features(pyramid))
    assert found.last is None
    for stage, expected in zip(found.stages, pyramid.stages, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(stage, expected, strict=True))
