import torch

from kshot.evaluation.feature_store import FeatureStore, num_bytes


def store_of(uses, budget):
    computed = []

    def compute(name):
        computed.append(name)
        return (torch.zeros(10),)  # 40 bytes

    return FeatureStore(compute, uses, budget), computed


def test_each_image_is_computed_once_and_dropped_after_its_last_use():
    uses = ["a", "b", "a", "c", "b", "a"]
    store, computed = store_of(uses, 1000)
    for name in uses:
        assert store.use(name)[0].shape == (10,)
    assert computed == ["a", "b", "c"]
    assert store.num_computed == 3
    assert store.num_kept == 0


def test_what_does_not_fit_is_computed_again():
    uses = ["a", "b", "a", "b", "a", "b"]
    store, computed = store_of(uses, 40)
    for name in uses:
        store.use(name)
    assert computed == ["a", "b", "b", "b"]
    store, computed = store_of(uses, 0)
    for name in uses:
        store.use(name)
    assert computed == uses


def test_bytes_are_counted_once_a_tensor():
    tensor = torch.zeros(3, 4)
    assert num_bytes(((tensor, tensor), tensor, None, torch.zeros(2))) == 48 + 8
