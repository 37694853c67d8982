import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from make_data import FEW_CHANNELS, TINY, randomise_norms, scene, tiny_backbone
from safetensors.torch import load_file, save_file

from kshot import ModelError, Segmenter, WeightsError
from kshot.methods.hub import list_models
from kshot.methods.saving import (
    ModelConfig,
    base_learner_names,
    build_method,
    load_model,
    read_config,
    save_model,
)
from kshot.models.base_learner import PSPNet
from kshot.models.choices import CHANNELS
from kshot.models.imagenet_weights import state_sha256
from kshot.training.base_learner_files import BaseLearnerConfig, load_base_learner, save_base_learner

CONFIGS = {
    "prototype": {"method": "prototype"},
    "hsnet-cls": {"method": "hsnet"},
    "hsnet-sem": {"method": "hsnet", "backbones": "sem"},
    "hsnet-both": {"method": "hsnet", "backbones": "both"},
    "two-pass": {"method": "two-pass", "base_classes": ("cat", "dog")},
    "two-pass-without-base": {"method": "two-pass", "mask_position": "before"},
}


@pytest.fixture
def backbone_file(tmp_path):
    path = tmp_path / "backbone.safetensors"
    save_file(tiny_backbone().trunk.state_dict(), path)
    return path


def make_segmenter(name, channels=FEW_CHANNELS):
    config = ModelConfig(backbone=TINY, image_size=64, channels=channels, **CONFIGS[name])
    torch.manual_seed(7)
    method = build_method(config, lambda: tiny_backbone())
    sem_backbone = getattr(getattr(method, "matcher", method), "sem_backbone", None)
    if sem_backbone is not None:
        randomise_norms(sem_backbone, seed=2)
    return Segmenter(config, method.eval(), torch.device("cpu"))


@pytest.mark.parametrize("name", CONFIGS)
def test_save_then_load_is_bit_equal(name, tmp_path, backbone_file):
    segmenter = make_segmenter(name)
    segmenter.save_pretrained(tmp_path / "model")
    loaded = Segmenter.from_pretrained(tmp_path / "model", backbone_weights=backbone_file, device="cpu")
    saved_state, loaded_state = segmenter.method.state_dict(), loaded.method.state_dict()
    assert saved_state.keys() == loaded_state.keys()
    assert all(torch.equal(saved_state[key], loaded_state[key]) for key in saved_state)
    image, mask = scene()
    expected, found = (s.fit(image, mask).predict(image) for s in (segmenter, loaded))
    np.testing.assert_array_equal(found.probability, expected.probability)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert loaded.config.mask_position == segmenter.config.mask_position
    loaded.save_pretrained(tmp_path / "again")
    for file in (tmp_path / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_only_learned_weights_are_in_the_file(tmp_path):
    make_segmenter("two-pass").save_pretrained(tmp_path)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert not any("cls_backbone" in key for key in keys)
    assert any("sem_backbone" in key for key in keys)
    assert any(key.startswith("base_head.") for key in keys)
    make_segmenter("prototype").save_pretrained(tmp_path / "prototype")
    assert [file.name for file in (tmp_path / "prototype").iterdir()] == ["config.json"]


def test_weights_have_the_same_permissions_as_the_config(tmp_path):
    make_segmenter("two-pass").save_pretrained(tmp_path)
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1


def test_other_backbone_weights_than_the_models_are_refused(tmp_path):
    make_segmenter("two-pass").save_pretrained(tmp_path / "model")
    save_file(tiny_backbone(seed=8).trunk.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"made with other weights of test_resnet"):
        load_model(tmp_path / "model", backbone_weights=tmp_path / "other.safetensors")


def test_weights_of_another_model_are_refused(tmp_path, backbone_file):
    make_segmenter("two-pass").save_pretrained(tmp_path)
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors don't fit.*missing.*1 unknown \(encoder\.x"):
        load_model(tmp_path, backbone_weights=backbone_file)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"There is no weights file .*model\.safetensors"):
        load_model(tmp_path, backbone_weights=backbone_file)


def test_a_flipped_bit_in_the_weights_is_found(tmp_path, backbone_file):
    make_segmenter("hsnet-cls", CHANNELS).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    undamaged, random = path.read_bytes(), np.random.default_rng(0)
    for place in random.integers(0, len(undamaged), 40):
        damaged = bytearray(undamaged)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            load_model(tmp_path, backbone_weights=backbone_file)
    path.write_bytes(undamaged)
    load_model(tmp_path, backbone_weights=backbone_file)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "magic"}, "no method 'magic'. Use one of adaptive, hsnet, prototype, two-pass"),
        ({"image_size": 0}, "image_size"),
        ({"learning_rate": 1}, "learning_rate: Extra inputs are not permitted"),
        ({"format": 2}, "format"),
    ],
)
def test_a_config_with_a_mistake_names_it(tmp_path, change, reason):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"method": "hsnet", "backbone": TINY, **change}))
    with pytest.raises(ModelError, match=reason):
        read_config(path)


SHIPPED = "kshot ships hsnet, prototype, two-pass, two-pass-general, two-pass-plus; "


def test_models_that_do_not_exist(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=SHIPPED):
        load_model("two_pass_on_mars")
    with pytest.raises(ModelError, match=r"there is no config\.json in it"):
        load_model(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no repository of that name could be fetched"):
        load_model("nobody/nothing")


@pytest.mark.parametrize("name", list_models())
def test_every_shipped_model_loads_and_knows_its_backbones_digests(name):
    config, method = load_model(name)
    by_cls, by_sem = (backbone is not None for backbone in method.backbones)  # prototype has no B_sem
    assert (config.backbone_sha256 is not None) == by_cls
    assert (config.base_learner_sha256 is not None) == by_sem
    assert (config.weights_sha256 is not None) == (config.method != "prototype")
    assert not method.training


@pytest.mark.parametrize("name", ["hsnet-both", "hsnet-cls", "hsnet-sem", "two-pass"])
def test_the_networks_of_the_ablation_load_with_the_shipped_base_learner(name):
    config, _ = load_model(ROOT / "benchmarks/weights" / f"ablation-{name}")
    assert (config.base_learner is None) == (name == "hsnet-cls")


def test_prototypes_take_any_backbone_and_trained_models_only_their_own(tmp_path, backbone_file):
    exchanged = Segmenter.from_pretrained(backbone=TINY, backbone_weights=backbone_file)
    assert exchanged.config.backbone == TINY
    image, mask = scene()
    assert exchanged.fit(image, mask).predict(image).mask.shape == mask.shape
    make_segmenter("two-pass").save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match="works with its own backbone only, test_resnet"):
        Segmenter.from_pretrained(tmp_path / "model", backbone="resnet50")


def with_base_learner(segmenter, folder):
    """Write a two-pass model whose base learner lies beside it, as those that ship."""
    names = base_learner_names(segmenter.method)
    state = segmenter.method.state_dict()
    network = PSPNet(TINY, 2)
    network.load_state_dict({name: state[key] for key, name in names.items()}, strict=False)
    about = BaseLearnerConfig(backbone=TINY, base_classes=("cat", "dog"), trained_on="two drawings")
    save_base_learner(about, network, folder / "base")
    digest = state_sha256(load_file(folder / "base" / "model.safetensors"))
    changes = {"base_learner": "../base", "base_learner_sha256": digest}
    save_model(segmenter.config.model_copy(update=changes), segmenter.method, folder / "model", half=True)


@pytest.mark.parametrize("name", ["two-pass", "hsnet-sem", "hsnet-both"])
def test_models_can_share_a_base_learner(name, tmp_path, backbone_file):
    segmenter = make_segmenter(name)
    with_base_learner(segmenter, tmp_path)
    keys = load_file(tmp_path / "model" / "model.safetensors").keys()
    assert not any("backbone" in key or "base_head" in key for key in keys)
    loaded = Segmenter.from_pretrained(tmp_path / "model", backbone_weights=backbone_file, device="cpu")
    saved_state, loaded_state = segmenter.method.state_dict(), loaded.method.state_dict()
    for key, value in saved_state.items():
        torch.testing.assert_close(loaded_state[key], value, rtol=1e-3, atol=1e-6)  # half precision
    image, mask = scene()
    expected, found = (s.fit(image, mask).predict(image).probability for s in (segmenter, loaded))
    np.testing.assert_allclose(found, expected, atol=0.01)
    loaded.save_pretrained(tmp_path / "alone")  # with the base learner, which is elsewhere
    alone = Segmenter.from_pretrained(tmp_path / "alone", backbone_weights=backbone_file, device="cpu")
    np.testing.assert_array_equal(alone.fit(image, mask).predict(image).probability, found)


def test_another_base_learner_is_refused(tmp_path, backbone_file):
    with_base_learner(make_segmenter("two-pass"), tmp_path)
    about = BaseLearnerConfig(backbone=TINY, base_classes=("cat", "dog"), trained_on="others")
    save_base_learner(about, PSPNet(TINY, 2), tmp_path / "base")
    with pytest.raises(WeightsError, match=r"not the base learner that the model .* was trained with"):
        load_model(tmp_path / "model", backbone_weights=backbone_file)


def test_base_learners_that_do_not_exist(tmp_path):
    with pytest.raises(ModelError, match=r"holds no base learner: there is no config\.json"):
        load_base_learner(tmp_path)
    (tmp_path / "config.json").write_text('{"backbone": "test_resnet"}')
    with pytest.raises(ModelError, match=r"not a base learner's config: base_classes"):
        load_base_learner(tmp_path)


def test_a_narrower_encoder_is_part_of_the_model(tmp_path, backbone_file):
    config = ModelConfig(method="hsnet", backbone=TINY, image_size=64, channels=(4, 8, 12))
    method = build_method(config, lambda: tiny_backbone())
    assert method.encoder.out_channels == 12
    Segmenter(config, method.eval(), torch.device("cpu")).save_pretrained(tmp_path)
    loaded, again = load_model(tmp_path, backbone_weights=backbone_file)
    assert loaded.channels == (4, 8, 12)
    assert sum(p.numel() for p in again.encoder.parameters()) < 30_000
