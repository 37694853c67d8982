import json

import numpy as np
import pytest
import torch
from make_data import TINY, randomise_norms, scene, tiny_backbone
from safetensors.torch import load_file, save_file

from kshot import ModelError, Segmenter, WeightsError
from kshot.pretrained import ModelConfig, build_method, load_model, read_config, shipped_models

CONFIGS = {
    "prototype": {"method": "prototype"},
    "hsnet-cls": {"method": "hsnet"},
    "hsnet-sem": {"method": "hsnet", "matched_by": "sem"},
    "hsnet-both": {"method": "hsnet", "matched_by": "both"},
    "two-pass": {"method": "two-pass", "base_classes": ("cat", "dog")},
    "two-pass-without-base": {"method": "two-pass", "mask_position": "before"},
}


@pytest.fixture
def backbone_file(tmp_path):
    path = tmp_path / "backbone.safetensors"
    save_file(tiny_backbone().trunk.state_dict(), path)
    return path


def make_segmenter(name):
    config = ModelConfig(backbone=TINY, image_size=64, **CONFIGS[name])
    torch.manual_seed(7)
    method = build_method(config, lambda _: tiny_backbone())
    sem_backbone = getattr(getattr(method, "matcher", method), "sem_backbone", None)
    if sem_backbone is not None:
        randomise_norms(sem_backbone, seed=2)
    return Segmenter(config, method.eval(), torch.device("cpu"))


@pytest.mark.parametrize("name", CONFIGS)
def test_save_then_load_is_bit_equal(name, tmp_path, backbone_file):
    segmenter = make_segmenter(name)
    segmenter.save(tmp_path / "model")
    loaded = Segmenter.from_pretrained(tmp_path / "model", backbone_weights=backbone_file, device="cpu")
    saved_state, loaded_state = segmenter.method.state_dict(), loaded.method.state_dict()
    assert saved_state.keys() == loaded_state.keys()
    assert all(torch.equal(saved_state[key], loaded_state[key]) for key in saved_state)
    picture, mask = scene()
    expected, found = (s.fit(picture, mask).explain(picture) for s in (segmenter, loaded))
    np.testing.assert_array_equal(found.fused, expected.fused)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert loaded.config.mask_position == segmenter.config.mask_position
    loaded.save(tmp_path / "again")
    for file in (tmp_path / "model").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_only_learned_weights_are_in_the_file(tmp_path):
    make_segmenter("two-pass").save(tmp_path)
    keys = load_file(tmp_path / "model.safetensors").keys()
    assert not any("cls_backbone" in key for key in keys)
    assert any("sem_backbone" in key for key in keys)
    assert any(key.startswith("base_head.") for key in keys)
    make_segmenter("prototype").save(tmp_path / "prototype")
    assert [file.name for file in (tmp_path / "prototype").iterdir()] == ["config.json"]


def test_other_backbone_weights_than_the_models_are_refused(tmp_path):
    make_segmenter("two-pass").save(tmp_path / "model")
    save_file(tiny_backbone(seed=8).trunk.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"made with other weights of test_resnet"):
        load_model(tmp_path / "model", backbone_weights=tmp_path / "other.safetensors")


def test_weights_of_another_model_are_refused(tmp_path, backbone_file):
    make_segmenter("two-pass").save(tmp_path)
    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors don't fit.*missing.*1 unknown \(encoder\.x"):
        load_model(tmp_path, backbone_weights=backbone_file)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"There is no weights file .*model\.safetensors"):
        load_model(tmp_path, backbone_weights=backbone_file)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "magic"}, "method: Input should be 'prototype', 'hsnet' or 'two-pass'"),
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


def test_models_that_do_not_exist(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="kshot ships prototype"):
        load_model("two_pass_on_mars")
    with pytest.raises(ModelError, match=r"there is no config\.json in it"):
        load_model(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no repository of that name could be fetched"):
        load_model("nobody/nothing")


@pytest.mark.parametrize("name", shipped_models())
def test_every_shipped_model_loads_and_knows_its_backbones_digest(name):
    config, method = load_model(name)
    assert config.backbone_sha256
    assert not method.training


def test_prototypes_take_any_backbone_and_trained_models_only_their_own(tmp_path, backbone_file):
    exchanged = Segmenter.from_pretrained(backbone=TINY, backbone_weights=backbone_file)
    assert exchanged.config.backbone == TINY
    picture, mask = scene()
    assert exchanged.fit(picture, mask).predict(picture).shape == mask.shape
    make_segmenter("two-pass").save(tmp_path / "model")
    with pytest.raises(ModelError, match="works with its own backbone only, test_resnet"):
        Segmenter.from_pretrained(tmp_path / "model", backbone="resnet50")
