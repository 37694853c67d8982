import numpy as np
import pytest
import torch
from make_data import scene, square_mask, tiny_method
from PIL import Image

from kshot import ModelError, Segmenter
from kshot.cli.main import main
from kshot.methods.acceleration import InBf16, accelerate
from kshot.types import Support

CPU = torch.device("cpu")


@pytest.fixture
def with_units(monkeypatch):
    """Let this processor say that it has units for bf16; without them it computes the same, slowly."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


def segment(method, query, image, mask):
    with torch.inference_mode():
        support = Support(method.support_features(image), mask)
        return method.segment(method.features(query), [support], query.shape[-2:])


def test_without_asking_the_method_itself_computes():
    method = tiny_method("two-pass")
    assert accelerate(method, "torch", "fp32", torch.device("cuda")) is None
    assert Segmenter.from_pretrained().accelerated is None


@pytest.mark.parametrize("name", ["hsnet-both", "two-pass"])
def test_bf16_stays_close_and_changes_no_method(with_units, name):
    method = tiny_method(name)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    fast = accelerate(method, "torch", "bf16", CPU)
    query, image, mask = torch.rand(1, 3, 96, 96), torch.rand(1, 3, 96, 96), square_mask()
    expected, found = segment(method, query, image, mask), segment(fast, query, image, mask)
    assert found.probability.dtype == torch.float32
    difference = (found.probability - expected.probability).abs().max()
    assert 0 < difference < 0.02
    torch.testing.assert_close(segment(method, query, image, mask), expected, rtol=0, atol=0)
    assert method.state_dict().keys() == before.keys()
    shared = {tensor.data_ptr() for tensor in method.parameters()}
    assert {tensor.data_ptr() for tensor in fast.parameters()} == shared


def test_what_is_summed_up_or_compared_is_fp32_under_bf16(with_units):
    fast = accelerate(tiny_method("two-pass"), "torch", "bf16", CPU)
    assert isinstance(fast.matcher.encoder, InBf16)
    image, mask = torch.rand(1, 3, 96, 96), square_mask()
    with torch.inference_mode():
        features = fast.features(image)
        prediction = fast.match(features, Support(fast.support_features(image), mask))
    assert features.base_logits.dtype == torch.float32
    assert {step.dtype for step in prediction} == {torch.float32}


@pytest.mark.openvino
def test_openvino_and_bf16_go_together(with_units):
    method = tiny_method("two-pass")
    fast = accelerate(method, "openvino", "bf16", CPU)
    query, image, mask = torch.rand(1, 3, 65, 65), torch.rand(1, 3, 65, 65), square_mask(size=(65, 65))
    expected, found = segment(method, query, image, mask), segment(fast, query, image, mask)
    assert 0 < (found.probability - expected.probability).abs().max() < 0.02


def test_what_cannot_be_had_is_said_with_a_remedy(monkeypatch):
    method = tiny_method("prototype")
    with pytest.raises(ModelError, match=r"no engine 'tensorrt'\. Use torch or openvino"):
        accelerate(method, "tensorrt", "fp32", CPU)
    with pytest.raises(ModelError, match=r"no precision 'fp16'\. Use fp32 or bf16"):
        accelerate(method, "torch", "fp16", CPU)
    for engine, precision in (("openvino", "fp32"), ("torch", "bf16")):
        with pytest.raises(ModelError, match=r"is for the CPU, but the device is 'cuda:0'.*--device cpu"):
            accelerate(method, engine, precision, torch.device("cuda:0"))
    with pytest.raises(ModelError, match=r"nothing to compute in bf16 with the engine torch\. Use"):
        accelerate(method, "torch", "bf16", CPU)
    method = tiny_method("hsnet-cls")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    with pytest.raises(ModelError, match="no units for bf16"):
        accelerate(method, "torch", "bf16", CPU)
    monkeypatch.setattr("kshot.methods.acceleration.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'kshot\[openvino\]'"):
        accelerate(method, "openvino", "fp32", CPU)


@pytest.mark.openvino
def test_the_command_takes_both(tmp_path, with_units):
    image, mask = scene()
    image.save(tmp_path / "support.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    scene(left=50, seed=1)[0].save(tmp_path / "query.png")
    arguments = ["segment", "--support", tmp_path / "support.png", tmp_path / "mask.png"]
    arguments += [tmp_path / "query.png", "--out", tmp_path / "out", "--image-size", 161]
    asked = ["--also", "probability", "--engine", "openvino", "--precision", "bf16"]
    with pytest.raises(SystemExit) as caught:
        main([*map(str, arguments), *asked])
    assert not caught.value.code
    found = np.load(tmp_path / "out/query_probability.npy")
    plain = Segmenter.from_pretrained(image_size=161).fit(image, mask).predict(scene(left=50, seed=1)[0])
    assert 0 < np.abs(found - plain.probability).max() < 0.1
