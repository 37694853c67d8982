import json

import pytest
import torch
from make_data import TINY, settings, write_folder, write_tiny_backbone, write_training_images
from safetensors.torch import load_file
from test_cli import run

from kshot.cli import training as commands
from kshot.training.base_learner_files import drop_classes, find_base_learner, load_base_learner


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    write_training_images(root)
    write_tiny_backbone(root / "tiny.safetensors")
    return root


def tiny(root, out, *more):
    options = (
        "--root",
        root,
        "--out",
        out,
        *settings(f"backbone={TINY}"),
        "--backbone-weights",
        root / "tiny.safetensors",
    )
    return (*options, "--device", "cpu", *settings("precision=fp32"), *more)


def test_from_images_to_a_model_by_two_commands(voc, tmp_path, capsys):
    base, model = tmp_path / "base", tmp_path / "model"
    short = settings(
        "phases.0.epochs=0.5", "phases.1.epochs=0.2", "crop=65", "batch=4", "num_val_images=2", "seed=3"
    )
    assert run("pretrain", *tiny(voc, base, *short)) == 0
    recipe = json.loads((base / "recipe.json").read_text())
    assert [phase["epochs"] for phase in recipe["phases"]] == [0.5, 0.2]
    assert (recipe["seed"], recipe["exclude_holdout"], recipe["novel_pixels"]) == (3, True, "ignore")
    options = (
        "--base-learner",
        base,
        *settings("sizes=2@65,1@97", "batch=2", "select_on=base"),
    )
    quick = (
        *settings(
            "validate_episodes=2",
            f"cache={tmp_path / 'features'}",
            "lr=0.01",
            "kappa=0.3",
            "sharpen_mask=true",
        ),
    )
    assert run("train", *tiny(voc, model, *options, *quick)) == 0
    recipe = json.loads((model / "recipe.json").read_text())
    assert [stage["image_size"] for stage in recipe["sizes"]] == [65, 97]
    assert (recipe["lr"], recipe["kappa"], recipe["sharpen_mask"]) == (0.01, 0.3, True)
    assert json.loads((model / "config.json").read_text())["image_size"] == 97
    command = json.loads((model / "metrics.json").read_text())["provenance"]["command"]
    assert "--root PLACE" in command
    assert f"kshot segment --model {model}" in capsys.readouterr().out
    evaluated = ("--model", model, "--backbone-weights", voc / "tiny.safetensors", "--data", "pascal")
    holdout = (
        "--holdout",
        "--protocol",
        "balanced",
        "--episodes",
        3,
        "--root",
        voc,
        "--out",
        tmp_path / "m.json",
    )
    assert run("episodes", "--data", "pascal", *holdout) == 0
    assert run("evaluate", *evaluated, "--root", voc, "--manifest", tmp_path / "m.json") == 0
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.slow  # the next test trains on a folder, too
def test_a_folder_is_trained_on_too(voc, tmp_path):
    names = ("ant", "bee", "cow")
    pairs = [(f"im{n}", n % 3) for n in range(12)]
    folder = write_folder(tmp_path / "data", pairs, class_names=names)
    weights = (
        *settings(f"backbone={TINY}"),
        "--backbone-weights",
        voc / "tiny.safetensors",
        "--device",
        "cpu",
    )
    quick = ("--data", folder, *settings("precision=fp32", "batch=2"), *weights)
    base, model = tmp_path / "base", tmp_path / "model"
    short = settings(
        "phases.0.epochs=0.5", "phases.1.epochs=0.2", "crop=65", "num_val_images=2", "exclude_holdout=false"
    )
    assert run("pretrain", "--out", base, *short, *quick) == 0
    options = ("--base-learner", base, *settings("sizes=2@65", "select_on=null", "validate_episodes=2"))
    assert run("train", "--out", model, *settings(f"cache={tmp_path / 'features'}"), *options, *quick) == 0
    config = json.loads((model / "config.json").read_text())
    assert config["base_classes"] == ["ant", "bee", "cow"]
    assert config["selected_on"] is None


OWN = ("--data", "own", *settings("select_on=null"))
CPU = ("--device", "cpu", *settings("precision=fp32"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("pretrain", *settings("phases.2.epochs=1")), "phases has 2 entries, counted from 0"),
        (("pretrain", *settings("data.name=1")), "data is 'pascal', which has no settings of its own"),
        (("train", *settings("sizes=257")), "sizes: Value error, '257' is not a number of steps"),
        (("train", *settings("epochs=3")), "There is no setting 'epochs'. Settings: method, backbones,"),
        (("train", *settings("draw_curves=1")), "There is no setting 'draw_curves'"),
        (("train", *settings("bach=3")), "There is no setting 'bach'. Did you mean batch"),
        (("train", *settings("fold=3")), "--set fold is an option of its own: give --fold"),
        (("train", "--set", "batch"), "--set is 'batch'. Give a setting's name and value, such as lr=5e-4"),
        (("train", "--recipe", "heavy"), "There is no recipe or file 'heavy'. Recipes: lite,"),
        (("train", "--recipe", "own"), "There is no recipe or file 'own'"),
        (("train", *settings("workers=-1")), "workers: Input should be greater than or equal to 0"),
        (("train", "--data", "pascal"), "The folder of pascal is missing. Give it as --root DIR"),
        (("pretrain", "--data", "nowhere"), "There is no benchmark and no folder 'nowhere'"),
        (("train", "--recipe", "lite", "--fold", 7), "fold: Input should be less than 4"),
        (("train", *OWN, "--start-from", "prototype"), "'prototype' is prototype, which has no training"),
        (("train", *OWN, "--start-from", "nowhere"), "no model or folder 'nowhere'. kshot ships"),
        (("train", *OWN, "--base-learner", "prototype"), "'prototype' (prototype) has no base learner. Give"),
        (
            ("train", *OWN, "--start-from", "two-pass", *settings("method=hsnet")),
            "cannot start from model 'two-pass': it has method two-pass, not hsnet. Give the recipe",
        ),
        (("train", *OWN, *CPU), "or a model that has one (--base-learner two-pass)"),
        (("train", *settings("sizes=3@8")), "sizes.0.image_size: Input should be greater than"),
    ],
)
def test_mistakes_are_one_line(arguments, problem, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "own", [("a", 0), ("b", 0)], class_names=("ant",))
    assert run(*arguments, "--out", tmp_path / "run") == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_recipe_can_be_a_file(voc, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'recipe = "lite"\nmethod = "hsnet"\nbatch = 2\nvalidate_episodes = 2\n'
        f'backbone = "{TINY}"\nprecision = "fp32"\nlr = 0.01\nsizes = [{{steps = 1, image_size = 65}}]\n'
    )
    common = ("--root", voc, "--backbone-weights", voc / "tiny.safetensors", "--device", "cpu")
    cache = f"cache={tmp_path / 'features'}"
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("train", *common, "--recipe", recipe, *settings(cache, "lr=0.02"), "--out", first) == 0
    written = json.loads((first / "recipe.json").read_text())
    assert (written["method"], written["lr"], written["class_cap"]) == ("hsnet", 0.02, 60)
    assert cache not in (first / "recipe.json").read_text()
    command = json.loads((first / "metrics.json").read_text())["provenance"]["command"]
    assert "--set cache=PLACE --set lr=0.02" in command
    # What a run writes is a recipe too.
    assert run("train", *common, "--recipe", first / "recipe.json", *settings(cache), "--out", second) == 0
    assert (second / "recipe.json").read_text() == (first / "recipe.json").read_text()
    assert load_file(second / "model.safetensors").keys() == load_file(first / "model.safetensors").keys()
    recipe.write_text("lr = = 3")
    assert run("train", *common, "--recipe", recipe, "--out", tmp_path / "third") == 2


def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "find_spec", lambda name: None if name == "accelerate" else True)
    assert run("train", "--out", tmp_path / "run") == 2
    assert "pip install accelerate" in capsys.readouterr().err


def test_a_folder_is_trained_on_without_a_word_of_folds(voc, tmp_path, capsys):
    names = ("ant", "bee", "cat", "dog", "elk")
    pairs = [(f"im{class_id}{n}", class_id) for class_id in range(5) for n in range(3)]
    folder = write_folder(tmp_path / "data", pairs, class_names=names)
    base, model = tmp_path / "base", tmp_path / "model"
    tiny = ("--data", folder, *settings(f"backbone={TINY}"), "--backbone-weights", voc / "tiny.safetensors")
    quick = ("--device", "cpu", *settings("precision=fp32", "batch=2"))
    short = settings("phases.0.epochs=0.2", "phases.1.epochs=0.2", "crop=65", "num_val_images=2")
    assert run("pretrain", *tiny, *quick, *short, "--out", base) == 0
    assert json.loads((base / "config.json").read_text())["base_classes"] == ["ant", "bee", "dog", "elk"]
    short = settings("sizes=1@65", "validate_episodes=2", f"cache={tmp_path / 'features'}")
    assert run("train", *tiny, *quick, *short, "--base-learner", base, "--out", model) == 0
    assert json.loads((model / "config.json").read_text())["selected_on"] == "base"
    assert "kshot segment" in capsys.readouterr().out


def test_a_folder_of_few_classes_holds_none_out_and_says_so(voc, tmp_path, capsys):
    pairs = [(f"im{class_id}{n}", class_id) for class_id in range(2) for n in range(3)]
    folder = write_folder(tmp_path / "data", pairs, class_names=("ant", "bee"))
    tiny = ("--data", folder, *settings(f"backbone={TINY}"), "--backbone-weights", voc / "tiny.safetensors")
    quick = ("--device", "cpu", *settings("precision=fp32", "batch=2", "method=hsnet", "sizes=1@65"))
    some = (*settings("validate_episodes=2", f"cache={tmp_path / 'features'}"), "--out", tmp_path / "model")
    assert run("train", *tiny, *quick, *some) == 0
    assert json.loads((tmp_path / "model" / "config.json").read_text())["selected_on"] is None
    assert "fewer than 5 classes: all are trained on" in capsys.readouterr().out


def test_a_training_goes_on_from_a_model_with_its_base_learner(voc, tmp_path):
    weights = (*settings(f"backbone={TINY}"), "--backbone-weights", voc / "tiny.safetensors")
    quick = (
        "--device",
        "cpu",
        *settings("precision=fp32", "batch=2", f"cache={tmp_path / 'features'}"),
        *weights,
    )
    pairs = [(f"im{n}", n % 3) for n in range(6)]
    theirs = write_folder(tmp_path / "theirs", pairs, class_names=("ant", "Bee", "cow"))
    base, first, mine = (tmp_path / name for name in ("base", "first", "mine"))
    short = settings(
        "phases.0.epochs=0.3", "phases.1.epochs=0.3", "crop=65", "num_val_images=2", "exclude_holdout=false"
    )
    assert run("pretrain", "--data", theirs, "--out", base, *short, *quick[:6], *weights) == 0
    few = settings("sizes=1@65", "select_on=null", "validate_episodes=2")
    assert run("train", "--data", theirs, "--base-learner", base, "--out", first, *few, *quick) == 0
    # It was trained on this folder, to find other things: nothing is forgotten.
    assert json.loads((first / "config.json").read_text())["base_classes"] == ["ant", "Bee", "cow"]
    own = write_folder(tmp_path / "own", [(f"o{n}", n % 2) for n in range(4)], class_names=("bee", "elk"))
    assert run("train", "--data", own, "--start-from", first, "--out", mine, *few, *quick) == 0
    assert json.loads((mine / "config.json").read_text())["base_classes"] == ["ant", "cow"]
    outputs = load_file(mine / "model.safetensors")["base_head.classify.4.bias"]
    kept = load_file(first / "model.safetensors")["base_head.classify.4.bias"][[0, 1, 3]]
    assert torch.equal(outputs, kept)
    digests = json.loads((mine / "recipe.json").read_text())
    assert digests["start_from_sha256"] == digests["base_learner_sha256"]


def test_models_that_ship_have_names_as_base_learners_too():
    folder = find_base_learner("two-pass")
    about, network = load_base_learner(folder)
    assert folder.name == "base_learner"
    assert len(about.base_classes) == 12
    smaller, forgetful = drop_classes(about, network, ("dog", "bus"))
    assert smaller.base_classes == tuple(n for n in about.base_classes if n not in ("dog", "bus"))
    features = torch.randn(1, network.backbone.num_features, 5, 5)
    kept = [0, *(1 + place for place, name in enumerate(about.base_classes) if name not in ("dog", "bus"))]
    torch.testing.assert_close(forgetful.head(features), network.head(features)[:, kept])
