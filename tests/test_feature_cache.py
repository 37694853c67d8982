import torch

from kshot.models.feature_cache import Budget, FeatureCache, MemoryStorage, num_bytes


def cache_of(uses, limit):
    computed = []

    def compute(name):
        computed.append(name)
        return (torch.zeros(10),)  # 40 bytes

    storage = MemoryStorage(uses, Budget(limit))
    return FeatureCache(compute, storage), storage, computed


def test_each_image_is_computed_once_and_dropped_after_its_last_use():
    uses = ["a", "b", "a", "c", "b", "a"]
    cache, storage, computed = cache_of(uses, 1000)
    for name in uses:
        assert cache.get(name)[0].shape == (10,)
    assert computed == ["a", "b", "c"]
    assert cache.num_computed == 3
    assert len(storage) == 0


def test_what_does_not_fit_is_computed_again():
    uses = ["a", "b", "a", "b", "a", "b"]
    cache, _, computed = cache_of(uses, 40)
    for name in uses:
        cache.get(name)
    assert computed == ["a", "b", "b", "b"]
    cache, _, computed = cache_of(uses, 0)
    for name in uses:
        cache.get(name)
    assert computed == uses


def test_bytes_are_counted_once_a_tensor():
    tensor = torch.zeros(3, 4)
    assert num_bytes(((tensor, tensor), tensor, None, torch.zeros(2))) == 48 + 8
