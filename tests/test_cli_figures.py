import json

import pytest
from make_data import result_of, tiny_method, write_folder
from PIL import Image
from safetensors.torch import save_file
from test_cli import run

from kshot.cli import figure as figure_commands
from kshot.data.folder import Folder
from kshot.data.manifest import read_manifest
from kshot.errors import DataError
from kshot.evaluation.results import write_result
from kshot.methods.config import ModelConfig
from kshot.methods.saving import save_model
from kshot.reproduction.episode_rows import comparison_row, load_episode, select_episodes
from kshot.segmenter import Segmenter
from kshot.transforms import Resize

SIZE = ["--image-size", 65]


@pytest.fixture
def episodes(tmp_path):
    """Options for a folder of images and five 2-shot episodes of it."""
    pairs = [(f"im{n}", n % 2) for n in range(8)]
    folder = write_folder(tmp_path / "data", pairs, class_names=("ant", "bee"))
    manifest = tmp_path / "m.json"
    assert run("episodes", "--data", folder, "--episodes", 5, "--shots", 2, "--out", manifest) == 0
    return ["--data", folder, "--manifest", manifest]


@pytest.fixture
def two_pass(tmp_path):
    """Options for a two-pass model with random weights, and the weights of its ImageNet backbone."""
    method = tiny_method("two-pass")
    classes = tuple(f"base {n}" for n in range(4))
    config = ModelConfig(method="two-pass", backbone="test_resnet", base_classes=classes, image_size=65)
    save_model(config, method, tmp_path / "model")
    save_file(method.cls_backbone.trunk.state_dict(), tmp_path / "backbone.safetensors")
    return ["--model", tmp_path / "model", "--backbone-weights", tmp_path / "backbone.safetensors"]


def is_figure(path):
    with Image.open(path) as image:
        return image.width > 900


def test_discriminability_is_measured_into_a_file_and_drawn_from_it(episodes, two_pass, tmp_path, capsys):
    command, sem, out = ("figure", "discriminability"), tmp_path / "sem.json", tmp_path / "rho.png"
    assert run(*command, *episodes, *two_pass, "--which", "sem", "--json", sem) == 0
    content = json.loads(sem.read_text())
    assert content["label"] == "B_sem test_resnet"
    assert content["provenance"]["command"].startswith("kshot figure discriminability")
    assert len(content["rho"]) == len(content["taps"])
    assert "stride  8" in capsys.readouterr().out
    assert run(*command, sem, *episodes, *two_pass, "--out", out) == 0  # measured and saved together
    assert is_figure(out)
    out.unlink()
    assert run(*command, sem, sem, "--out", out) == 0
    assert is_figure(out)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--which", "sem", "--json", "x.json", *SIZE], "has no sem backbone, only cls"),
        ([], "Nothing to write"),
    ],
)
def test_discriminability_needs_a_backbone_and_an_output(
    episodes, options, reason, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run("figure", "discriminability", *episodes, *options) == 2
    assert reason in capsys.readouterr().err


def test_discriminability_measures_episodes_of_a_dataset(episodes, capsys):
    assert run("figure", "discriminability", "--json", "x.json") == 2
    assert "Give --manifest to measure" in capsys.readouterr().err
    assert run("figure", "discriminability", *episodes[2:], "--json", "x.json") == 2
    assert "--manifest needs --data" in capsys.readouterr().err


def test_correlations_of_both_backbones(episodes, two_pass, tmp_path):
    out = tmp_path / "c.png"
    assert run("figure", "correlations", *episodes, *two_pass, "--episode", 3, "--out", out) == 0
    assert is_figure(out)


def test_passes_need_a_method_with_two(episodes, two_pass, tmp_path, capsys):
    out = tmp_path / "p.png"
    assert run("figure", "passes", *episodes, *two_pass, "--episode", 0, "--episode", 2, "--out", out) == 0
    assert is_figure(out)
    options = ["--model", "prototype", *SIZE, "--out", out]
    assert run("figure", "passes", *episodes, *options) == 2
    assert "has no two passes" in capsys.readouterr().err


def test_a_comparison_draws_models_side_by_side(episodes, two_pass, tmp_path, capsys):
    out = tmp_path / "p.png"
    backbones = ["--backbone", "efficientnet_lite0", "--backbone", "efficientnet_lite2"]
    assert run("figure", "comparison", *episodes, *backbones, *SIZE, "--episode", 1, "--out", out) == 0
    assert is_figure(out)
    assert run("figure", "comparison", *episodes, *SIZE, "--episode", 5, "--out", out) == 2
    assert "no episode 5; the manifest has 0 to 4" in capsys.readouterr().err


def test_without_matplotlib_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figure_commands, "find_spec", lambda name: None)
    assert run("figure", "classes", tmp_path / "a.json", "--out", tmp_path / "bars.png") == 2
    assert "pip install matplotlib" in capsys.readouterr().err


def test_class_bars_are_drawn_from_results(tmp_path, capsys):
    write_result(result_of(), tmp_path / "a.json")
    assert run("figure", "classes", tmp_path / "a.json", "--out", tmp_path / "bars.pdf") == 0
    assert (tmp_path / "bars.pdf").read_bytes().startswith(b"%PDF")
    assert run("figure", "classes", tmp_path / "a.json", "--out", tmp_path / "bars.gif") == 2
    assert ".png, .pdf, .svg" in capsys.readouterr().err


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_a_compared_mask_is_the_segmenter_s(episodes, fit, tmp_path):
    dataset = Folder(tmp_path / "data")
    (episode,) = select_episodes(read_manifest(tmp_path / "m.json"), [0])
    loaded = load_episode(dataset, episode)
    segmenter = Segmenter.from_pretrained(image_size=65)
    row = comparison_row([segmenter], loaded, [Resize(65, fit)], "ant")
    assert row.predictions[0].shape == loaded.ground_truth.shape
    if fit == "squash":
        images, ground_truths = zip(*loaded.supports, strict=True)
        expected = segmenter.fit(images, [ground_truth == 1 for ground_truth in ground_truths]).predict(
            loaded.query
        )
        assert (row.predictions[0] == expected).mean() > 0.97  # masks shrink by another rule of rounding
    with pytest.raises(DataError, match="no episode -1"):
        select_episodes(read_manifest(tmp_path / "m.json"), [-1])
