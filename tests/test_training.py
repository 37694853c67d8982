"""Both trainings as a whole, in seconds: what they write, that they learn, and that they can be resumed.

Most runs have one or two steps and share their features and their first runs: a run's time is its start.
"""

import hashlib
import json
import os
import signal

import numpy as np
import pytest
import torch
from make_data import HOLDOUT, TINY, TRAINED, settings, write_tiny_backbone, write_training_images
from PIL import Image
from processes import run_alone, run_together
from safetensors.torch import load_file

from kshot import DataError, ModelError, Segmenter, WeightsError
from kshot.cli.main import main
from kshot.data.pascal import Pascal
from kshot.io.images import read_image
from kshot.io.provenance import record_provenance
from kshot.methods.saving import read_config
from kshot.models.choices import KAPPA
from kshot.models.hypercorrelation import tap_means
from kshot.models.imagenet_weights import read_state, state_sha256
from kshot.reproduction.curves import save_curves
from kshot.training.base_learner_files import find_base_learner, load_base_learner, save_base_learner
from kshot.training.checkpoint import read_checkpoint, save_checkpoint
from kshot.training.episodes import TrainingEpisodes
from kshot.training.meta_train import (
    MetaLearner,
    build,
    lr_schedule,
    param_groups,
    read_base_learner,
    size_at,
    train,
)
from kshot.training.pretraining import poly_schedule, pretrain
from kshot.training.recipes import (
    EpisodeMix,
    PretrainConfig,
    PretrainPhase,
    RuntimeArgs,
    SizeStage,
    TrainConfig,
)
from kshot.training.run_folder import RunFolder
from kshot.training.trainer import make_accelerator
from kshot.transforms import Resize

CPU = RuntimeArgs(device="cpu")
PRETRAIN = PretrainConfig(
    backbone=TINY,
    exclude_holdout=True,
    novel_pixels="ignore",
    crop=65,
    scale=(0.8, 1.2),
    blur=0.0,
    batch=4,
    phases=(PretrainPhase(epochs=20, output_stride=16), PretrainPhase(epochs=1, learns="head")),
    optimiser="adamw",
    backbone_lr=1e-3,
    head_lr=3e-3,
    num_val_images=3,
)
TRAIN = TrainConfig(
    backbone=TINY,
    channels=(4, 8, 8),
    novel_pixels="ignore",
    unknown_pixels="ignore",
    class_cap=4,
    flip=True,
    sizes=(SizeStage(steps=20, image_size=65),),
    batch=4,
    warmup=5,
    decay="cosine",
    clip=5.0,
    ema=0.9,
    validate_every=20,
    validate_episodes=2,
)
ONE_STEP = {"sizes": (SizeStage(steps=1, image_size=65),)}
STILL = {"lr": 0.0, "seed": 5}
"""Settings of a run that starts from another one and changes no weights."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    write_training_images(root)
    return root, write_tiny_backbone(root / "tiny.safetensors")


@pytest.fixture(scope="module")
def base_learner(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "base"
    runtime = RuntimeArgs(device="cpu", draw_curves=save_curves)
    pretrain(PRETRAIN, Pascal(files[0]), out, runtime, backbone_weights=files[1])
    return out


@pytest.fixture(scope="module")
def two_pass(files, tmp_path_factory, base_learner):
    """A two-pass with centered features after a few steps."""
    config = TRAIN.model_copy(update=ONE_STEP | {"center_features": True, "ema": None})
    return train_tiny(files, tmp_path_factory.mktemp("runs") / "two-pass", config, base_learner)


def train_tiny(
    files,
    out,
    config=TRAIN,
    base_learner=None,
    runtime=CPU,
    cache=None,
    cache_gb=1.0,
    start_from=None,
    others=(),
):
    train(
        config,
        Pascal(files[0]),
        out,
        runtime.model_copy(update={"cache": cache or files[0] / "features", "cache_gb": cache_gb}),
        base_learners=(*(() if base_learner is None else (base_learner,)), *others),
        start_from=start_from,
        backbone_weights=files[1],
    )
    return out


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def card_of(run):
    return (run / "README.md").read_text()


SMALL_STEPS = 1e-4
"""Learning rate of runs that are compared: sums in another order differ by a rounding error, of which a ReLU
that is just at its kink makes a step; large steps would then drive the two apart."""


def losses_of(run):
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [entry["losses"] for entry in entries if "losses" in entry]


def test_a_base_learner_learns_and_all_its_files_are_written(base_learner):
    about, network = load_base_learner(base_learner)
    assert about.base_classes[1:3] == ("car", "chair")
    assert not {"cat", "horse", "sofa", "bird"} & set(about.base_classes)
    assert network.backbone.output_stride == 8
    metrics = json.loads((base_learner / "metrics.json").read_text())
    assert metrics["validation"]["base_miou"] > 0.3  # objects are rectangles of one colour
    log = [json.loads(line) for line in (base_learner / "log.jsonl").read_text().splitlines()]
    assert (log[0]["phase"], log[0]["step"]) == (0, 0)  # before the first step
    assert log[0]["validation"]["base_miou"] < metrics["validation"]["base_miou"]
    assert {entry["phase"] for entry in log} == {0, 1}
    with Image.open(base_learner / "curves.png") as curves:
        assert curves.width > 1000
    assert "PSPNet, test_resnet, pascal, fold 0" in card_of(base_learner)
    stored = load_file(base_learner / "model.safetensors")
    assert {value.dtype for value in stored.values() if value.ndim > 1} == {torch.float16}


def test_a_head_phase_changes_only_the_head_and_is_kept_if_it_is_better(files, tmp_path, monkeypatch):
    first = learned_when_scored(0.1, 0.5, 0.4, files, tmp_path / "worse", monkeypatch)
    metrics = json.loads((tmp_path / "worse/metrics.json").read_text())
    assert metrics["validation"]["base_miou"] == 0.5
    second = learned_when_scored(0.1, 0.5, 0.6, files, tmp_path / "better", monkeypatch)
    changed = {key.partition(".")[0] for key in first if not torch.equal(first[key], second[key])}
    assert changed == {"head"}


def learned_when_scored(before, first, second, files, out, monkeypatch):
    """Train a base learner in two phases whose validations give these scores: its weights."""
    scores = iter((before, first, second))
    score = lambda *_, **__: {"base_miou": next(scores), "background_iou": 0.5}  # noqa: E731
    monkeypatch.setattr("kshot.training.pretraining.BaseValidation.score", score)
    phases = tuple(phase.model_copy(update={"epochs": 0.1}) for phase in PRETRAIN.phases)
    config = PRETRAIN.model_copy(update={"phases": phases})
    pretrain(config, Pascal(files[0]), out, CPU, backbone_weights=files[1])
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize(
    ("method", "backbones", "losses"),
    [
        ("hsnet", "cls", {"final"}),
        pytest.param("hsnet", "sem", {"final"}, marks=pytest.mark.slow),
        pytest.param("hsnet", "both", {"cls", "sem", "combined"}, marks=pytest.mark.slow),
        ("two-pass", "cls", {"cls", "sem", "combined", "second", "final"}),
    ],
)
def test_every_method_trains_and_its_run_is_a_model(files, tmp_path, base_learner, method, backbones, losses):
    config = TRAIN.model_copy(update={"method": method, "backbones": backbones})
    needed = None if (method, backbones) == ("hsnet", "cls") else base_learner
    run = train_tiny(files, tmp_path / "run", config, needed)
    logged = losses_of(run)
    assert set(logged[0]) == losses
    assert sum(logged[-1].values()) < sum(logged[0].values())
    assert json.loads((run / "metrics.json").read_text())["validation"]["miou"] >= 0
    segmenter = Segmenter.from_pretrained(run, backbone_weights=files[1], device="cpu")
    assert segmenter.config.selected_on == "base"
    assert segmenter.config.image_size == 65
    dataset = Pascal(files[0])
    photograph = dataset.image_path(next(iter(files[0].rglob("*.jpg"))).stem)
    mask = np.zeros((36, 48), dtype=bool)
    mask[6:28, 2:44] = True
    assert segmenter.fit(photograph, mask).predict(photograph).mask.shape == (36, 48)
    assert method in card_of(run)


def test_the_fusion_has_its_own_learning_rate(files, base_learner):
    config = TRAIN.model_copy(update={"fusion_lr": 0.0, "lr": 0.5})
    _, method = build(config, read_base_learner(config, base_learner), files[1])
    learner = MetaLearner(method, KAPPA)
    matching, fusion = param_groups(learner, config)
    assert (matching["lr"], fusion["lr"]) == (0.5, 0.0)
    assert [w.numel() for w in fusion["params"]] == [2, 1]
    learned = [w for w in learner.parameters() if w.requires_grad]
    assert {id(w) for w in (*matching["params"], *fusion["params"])} == {id(w) for w in learned}
    _, hsnet = build(config.model_copy(update={"method": "hsnet"}), None, files[1])
    assert [group["lr"] for group in param_groups(MetaLearner(hsnet, KAPPA), config)] == [0.5]


def test_a_second_run_in_the_same_folder_is_refused_and_so_are_other_settings(files, two_pass, base_learner):
    config = TRAIN.model_copy(update=ONE_STEP | {"center_features": True, "ema": None})
    with pytest.raises(DataError, match="holds a run already"):
        train_tiny(files, two_pass, config, base_learner)
    resume = RuntimeArgs(device="cpu", resume=True)
    with pytest.raises(WeightsError, match="was started with other settings"):
        train_tiny(files, two_pass, config.model_copy(update={"lr": 0.1}), base_learner, resume)


def test_a_run_of_an_older_version_whose_settings_had_other_names_can_be_resumed(tmp_path, two_pass):
    recipe = (two_pass / "recipe.json").read_text().strip()
    checkpoint = read_checkpoint(two_pass / "checkpoint.pt", recipe)
    old = recipe.replace('"mask_class_logit"', '"unlearn_own"').replace('"sharpen_mask"', '"sharpened"')
    assert old != recipe
    assert TrainConfig.model_validate_json(old) == TrainConfig.model_validate_json(recipe)
    save_checkpoint(checkpoint._replace(recipe=old), tmp_path / "checkpoint.pt")
    assert read_checkpoint(tmp_path / "checkpoint.pt", recipe).step == checkpoint.step
    names = {"hold_out": True, "leave_out": ["dog"], "kept_back": 2}
    older = PretrainConfig.model_validate({"backbone": TINY, **names})
    assert (older.exclude_holdout, older.excluded_classes, older.num_val_images) == (True, ("dog",), 2)


def test_a_run_that_was_stopped_early_does_not_block_its_folder(files, tmp_path, base_learner):
    config = TRAIN.model_copy(update=ONE_STEP)
    with pytest.raises(ModelError, match="give its folder with --base-learner"):
        train_tiny(files, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()
    started = RunFolder(tmp_path / "run", "{}", resume=False)  # and killed before its first checkpoint
    started.begin()
    started.log({"phase": 0, "step": 10, "losses": {"final": 7.0}})
    run = train_tiny(files, tmp_path / "run", config, base_learner)
    assert [losses.get("final") for losses in losses_of(run)] != [7.0]
    assert 7.0 not in [losses["final"] for losses in losses_of(run)]


def test_an_overflowing_cache_changes_nothing(files, tmp_path, base_learner):
    config = TRAIN.model_copy(update={"sizes": (SizeStage(steps=2, image_size=65),)})
    runs = {
        gb: train_tiny(files, tmp_path / f"run{gb}", config, base_learner, CPU, tmp_path / f"{gb}", gb)
        for gb in (1.0, 1e-4, 0)
    }
    sizes = [len(list((tmp_path / f"{gb}").rglob("*.safetensors"))) for gb in runs]
    assert sizes[0] > sizes[1] > sizes[2] == 0
    assert len({digest(run / "model.safetensors") for run in runs.values()}) == 1


def test_parts_of_a_batch_add_up_to_it(files, tmp_path):
    stages = (SizeStage(steps=4, image_size=65),)
    config = TRAIN.model_copy(update={"method": "hsnet", "sizes": stages, "lr": SMALL_STEPS})
    whole = train_tiny(files, tmp_path / "whole", config)
    parts = train_tiny(files, tmp_path / "parts", config.model_copy(update={"accumulate": 2}))
    a, b = losses_of(whole)[0]["final"], losses_of(parts)[0]["final"]
    assert a == pytest.approx(b, abs=1e-5)


def test_the_image_size_changes_on_the_way(files, tmp_path):
    stages = (SizeStage(steps=2, image_size=65), SizeStage(steps=1, image_size=97))
    config = TRAIN.model_copy(update={"method": "hsnet", "sizes": stages})
    assert [size_at(config, step) for step in range(3)] == [65, 65, 97]
    run = train_tiny(files, tmp_path / "run", config)
    assert Segmenter.from_pretrained(run, backbone_weights=files[1]).config.image_size == 97


def test_a_training_can_start_from_another_models_meta_learner(files, tmp_path, base_learner, two_pass):
    still = TRAIN.model_copy(update=ONE_STEP | STILL | {"ema": None})
    second = train_tiny(files, tmp_path / "second", still, base_learner, start_from=two_pass)
    assert digest(two_pass / "model.safetensors") == digest(second / "model.safetensors")
    start = state_sha256(read_state(two_pass / "model.safetensors"))
    assert f"- Started from another model's weights (`--start-from`, sha256 {start}).\n" in card_of(second)
    assert "- Started from random weights.\n" in card_of(two_pass)
    other = still.model_copy(update={"channels": (4, 4, 8)})
    with pytest.raises(ModelError, match=r"has channels of the encoder \(4, 8, 8\), not \(4, 4, 8\)\."):
        train_tiny(files, tmp_path / "third", other, base_learner, start_from=two_pass)


def test_an_hsnet_becomes_the_first_part_of_a_two_pass(files, tmp_path, base_learner, two_pass):
    short = ONE_STEP | {"center_features": True, "ema": None}
    first = train_tiny(files, tmp_path / "first", TRAIN.model_copy(update=short | {"method": "hsnet"}))
    still = TRAIN.model_copy(update=short | STILL)
    second = train_tiny(files, tmp_path / "second", still, base_learner, start_from=first)
    given, got = (read_state(run / "model.safetensors") for run in (first, second))
    assert {"encoder.squeeze.0.convs.0.query_conv.weight", "decoder.fine.0.bias", "cls_means"} <= set(given)
    for name, weights in given.items():
        assert torch.equal(got[f"matcher.{name}"], weights), name
    assert got["matcher.sem_means"].any()  # parts that the hsnet lacks are measured, or random
    assert got["matcher.joint_decoder.fine.0.weight"].any()
    with pytest.raises(ModelError, match="it has method two-pass, not hsnet"):
        train_tiny(
            files, tmp_path / "third", still.model_copy(update={"method": "hsnet"}), start_from=two_pass
        )


def test_a_centered_matcher_has_the_mean_features_of_the_training_images(
    files, tmp_path, base_learner, two_pass
):
    segmenter = Segmenter.from_pretrained(two_pass, backbone_weights=files[1], device="cpu")
    matcher = segmenter.method.matcher
    dataset = Pascal(files[0])
    names = TrainingEpisodes(TRAIN, dataset).image_names
    images = [Resize(65).image(read_image(dataset.image_path(name))) for name in names]
    for means, backbone in zip((matcher.cls_means, matcher.sem_means), matcher.backbones, strict=True):
        expected = torch.stack([tap_means(backbone(image)) for image in images]).mean(dim=0)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(means, expected, rtol=1e-2, atol=1e-2)  # the cache is in half precision
    about, network = load_base_learner(base_learner)
    with torch.no_grad():
        for weight in network.backbone.parameters():
            weight.mul_(1.5)
    (tmp_path / "other").mkdir()
    save_base_learner(about, network, tmp_path / "other")
    still = TRAIN.model_copy(update=ONE_STEP | STILL)
    run = train_tiny(files, tmp_path / "run", still, tmp_path / "other", start_from=two_pass)
    given, got = (read_state(one / "model.safetensors") for one in (two_pass, run))
    assert torch.equal(got["matcher.cls_means"], given["matcher.cls_means"])
    assert not torch.allclose(got["matcher.sem_means"], given["matcher.sem_means"])  # B_sem is another one
    assert got["matcher.sem_means"].any()
    # Not bytes: the average of a weight of -0.0 with itself is 0.0.
    same = {name for name in given if "sem_backbone" not in name and not name.endswith("sem_means")}
    assert all(torch.equal(got[name], given[name]) for name in same)


def test_a_training_can_start_from_a_smaller_network(files, tmp_path, base_learner, two_pass):
    """Weights of all shared parts carry over; a fusion of another kind starts anew."""
    changes = {"ema": None, "first_stride": 16, "fusion": "both-passes", "base_stride": 16}
    still = TRAIN.model_copy(update=ONE_STEP | STILL | changes)
    second = train_tiny(files, tmp_path / "second", still, base_learner, start_from=two_pass)
    given, got = (read_state(run / "model.safetensors") for run in (two_pass, second))
    gone = {name for name in given if name not in got}
    assert gone
    assert all(".squeeze.2." in n or ".mix.1." in n or n.startswith("fusion.") for n in gone)
    new = {name for name in got if name not in given}
    assert all(name.startswith("fusion.") for name in new)
    for name in given.keys() & got.keys():
        assert torch.equal(got[name], given[name]), name
    segmenter = Segmenter.from_pretrained(second, backbone_weights=files[1], device="cpu")
    image = read_image(Pascal(files[0]).image_path(TrainingEpisodes(TRAIN, Pascal(files[0])).image_names[0]))
    mask = np.zeros((image.height, image.width), dtype=np.uint8)
    mask[5:20, 5:20] = 1
    assert segmenter.fit([image], [mask]).predict(image).mask.shape == mask.shape


def test_a_mix_of_episodes_trains_to_the_same_weights_again(files, tmp_path, base_learner):
    mix = EpisodeMix(classes=1, regions=1, items=1, mosaics=1, thin=1)
    changes = {"mix": mix, "select_on": None, "dice": 0.5, "fusion": "both-passes", "base_stride": 16}
    sizes = {"sizes": (SizeStage(steps=3, image_size=65),), "validate_every": 100, "batch": 2}
    config = TRAIN.model_copy(update=changes | sizes)
    learner = find_base_learner(base_learner)
    whole = train_tiny(files, tmp_path / "whole", config, learner)
    assert all(np.isfinite(list(one.values())).all() for one in losses_of(whole))
    often = RuntimeArgs(device="cpu", checkpoint_seconds=0)
    again = train_tiny(files, tmp_path / "again", config, learner, often)
    assert digest(whole / "model.safetensors") == digest(again / "model.safetensors")
    assert json.loads((again / "recipe.json").read_text())["mix"]["thin"] == 1.0


def test_a_base_learner_goes_on_from_another_one(files, tmp_path, base_learner):
    short = {
        "phases": (PretrainPhase(epochs=0.1),),
        "backbone_lr": 0.0,
        "head_lr": 0.0,
        "exclude_holdout": False,
    }
    out = tmp_path / "on"
    config = PRETRAIN.model_copy(update=short)
    pretrain(config, Pascal(files[0]), out, CPU, start_from=base_learner, backbone_weights=files[1])
    (known, before), (about, after) = load_base_learner(base_learner), load_base_learner(out)
    assert set(known.base_classes) < set(about.base_classes)
    old, new = before.state_dict(), after.state_dict()
    weights = "head.classify.4.weight"
    for name in known.base_classes:
        mine, theirs = about.base_classes.index(name) + 1, known.base_classes.index(name) + 1
        torch.testing.assert_close(new[weights][mine], old[weights][theirs])
    for key, value in old.items():
        if key.startswith("backbone.") and value.ndim == 4:  # a norm's means do change
            torch.testing.assert_close(new[key], value)
    assert "start_from_sha256" in (out / "recipe.json").read_text()


def test_a_training_that_starts_from_a_sharpened_model_sharpens(files, tmp_path, base_learner):
    short = TRAIN.model_copy(update=ONE_STEP)
    sharpened = short.model_copy(update={"sharpen_mask": True})
    run = train_tiny(files, tmp_path / "run", sharpened, base_learner)
    first = Segmenter.from_pretrained(run, backbone_weights=files[1], device="cpu")
    assert first.config.sharpen_mask
    assert first.method.sharpen_mask
    assert "soft mask is sharpened" in card_of(run)
    for given, expected in ((None, True), (False, False)):
        config = short.model_copy(update={"sharpen_mask": given})
        on = train_tiny(files, tmp_path / str(given), config, base_learner, start_from=run)
        assert read_config(on / "config.json").sharpen_mask is expected
        assert ("soft mask is sharpened" in card_of(on)) is expected


def test_base_learners_without_a_class_encode_its_episodes(files, tmp_path, base_learner):
    known, others = load_base_learner(base_learner)[0].base_classes, []
    for left_out in (("dog",), ("chair", "cow")):
        config = PRETRAIN.model_copy(
            update={"excluded_classes": left_out, "phases": (PretrainPhase(epochs=0.1),)}
        )
        others.append(tmp_path / left_out[0])
        pretrain(config, Pascal(files[0]), others[-1], CPU, backbone_weights=files[1])
        about, _ = load_base_learner(others[-1])
        assert set(about.base_classes) == set(known) - set(left_out)
    short = TRAIN.model_copy(update=ONE_STEP | {"center_features": True})
    run = train_tiny(files, tmp_path / "run", short, base_learner, others=others)
    recipe = json.loads((run / "recipe.json").read_text())
    digests = [state_sha256(read_state(one / "model.safetensors")) for one in (base_learner, *others)]
    assert [recipe["base_learner_sha256"], *recipe["other_learners_sha256"]] == digests
    assert "features from 3 base learners, each from one that was not" in card_of(run)
    assert json.loads((run / "config.json").read_text())["base_classes"] == list(known)
    assert losses_of(run)
    with pytest.raises(DataError, match="All 2 base learners were trained on chair"):
        train_tiny(files, tmp_path / "few", short, base_learner, others=others[:1])
    unknown = PRETRAIN.model_copy(update={"excluded_classes": ("unicorn",)})
    with pytest.raises(DataError, match=r"no base class 'unicorn' to exclude. The classes are: bus, "):
        pretrain(unknown, Pascal(files[0]), tmp_path / "unknown", CPU, backbone_weights=files[1])


def test_learning_rates_rise_and_fall():
    factors = [lr_schedule(TRAIN, 20)(step) for step in range(20)]
    assert factors[0] < factors[1] < factors[5]
    assert max(factors) <= 1
    assert factors[-1] < 0.01
    constant = lr_schedule(TRAIN.model_copy(update={"decay": "none", "warmup": 0}), 20)
    assert {constant(step) for step in range(20)} == {1.0}
    assert poly_schedule(10)(0) == 1
    assert poly_schedule(10)(5) == pytest.approx(0.5**0.9)


def test_impossible_trainings_are_errors(files, tmp_path, base_learner):
    with pytest.raises(ModelError, match="give its folder with --base-learner"):
        build(TRAIN, None, files[1])
    with pytest.raises(ModelError, match="backbone test_resnet, but the meta-learner has resnet50"):
        read_base_learner(TRAIN.model_copy(update={"backbone": "resnet50"}), base_learner)
    seen = PRETRAIN.model_copy(update={"exclude_holdout": False, "phases": (PretrainPhase(epochs=0.1),)})
    pretrain(seen, Pascal(files[0]), tmp_path / "seen", CPU, backbone_weights=files[1])
    with pytest.raises(DataError, match=r"trained on cat, horse, sofa"):
        read_base_learner(TRAIN, tmp_path / "seen")
    with pytest.raises(DataError, match="batch of 3 cannot be divided"):
        make_accelerator(CPU, "fp32", 2, 3)


def test_a_run_that_diverges_is_an_error_and_logs_its_images(files, tmp_path):
    config = TRAIN.model_copy(update={"method": "hsnet", "lr": 1e30, "clip": None, "ema": None})
    with pytest.raises(DataError, match=r"not finite in 3 steps in a row, the last of them step \d"):
        train_tiny(files, tmp_path, config)
    left_out = [json.loads(line) for line in (tmp_path / "skipped_steps.jsonl").read_text().splitlines()]
    assert len(left_out) == 3
    for step in left_out:
        assert len(step["shows"]) == config.batch
        assert set(step["shows"][0]) == {"class", "query", "support"}
    assert not (tmp_path / "metrics.json").exists()


def command(files, out, *more):
    """Return the arguments of a run of two log entries, with a checkpoint after each."""
    options = f"--root {files[0]} --out {out} --backbone-weights {files[1]} --device cpu"
    changed = f"cache={files[0] / 'features'} method=hsnet backbone={TINY} sizes=20@65 batch=4 precision=fp32"
    changed += f" validate_episodes=2 validate_every=20 checkpoint_seconds=0 lr={SMALL_STEPS}"
    return ["train", *options.split(), *settings(*changed.split()), *more]


def run_command(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert not caught.value.code


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    """A run by one process without interruption."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_command(command(files, out))
    return out


def killed(function, *arguments):
    """Call a training that kills its process when it has logged step 20, before it saves a checkpoint."""
    log = RunFolder.log

    def log_and_die(run, entry):
        log(run, entry)
        if entry["step"] == 20:
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.log = log_and_die  # in a process that ends here
    function(*arguments)


def assert_resumed_as_whole(run, whole):
    assert digest(run / "model.safetensors") == digest(whole / "model.safetensors")
    assert losses_of(run) == losses_of(whole)


def test_a_killed_training_resumes_to_the_same_weights(files, tmp_path, whole):
    run = tmp_path / "run"
    ended = run_alone(killed, main, command(files, run), log=tmp_path / "stderr.txt")
    assert ended.status == -signal.SIGKILL, ended.stderr
    assert len(losses_of(run)) == 2
    assert not (run / "metrics.json").exists()
    run_command(command(files, run, "--resume"))
    assert_resumed_as_whole(run, whole)


def pretrain_briefly(files, out, resume=False):
    phases = (PretrainPhase(epochs=8, output_stride=16), PretrainPhase(epochs=1, learns="head"))
    config = PRETRAIN.model_copy(update={"phases": phases})
    runtime = RuntimeArgs(device="cpu", resume=resume, checkpoint_seconds=0)
    pretrain(config, Pascal(files[0]), out, runtime, backbone_weights=files[1])


@pytest.mark.slow  # the loop is that of the killed training above
def test_a_killed_pretraining_resumes_to_the_same_weights(files, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    pretrain_briefly(files, whole)
    ended = run_alone(killed, pretrain_briefly, files, run, log=tmp_path / "stderr.txt")
    assert ended.status == -signal.SIGKILL, ended.stderr
    assert not (run / "metrics.json").exists()
    pretrain_briefly(files, run, resume=True)
    assert_resumed_as_whole(run, whole)


def test_two_processes_learn_what_one_does(files, tmp_path, whole):
    run = tmp_path / "run"
    for status, stderr in run_together(main, command(files, run), folder=tmp_path):
        assert status == 0, stderr
    one, two = losses_of(whole), losses_of(run)
    assert len(one) == len(two) == 2
    for mine, theirs in zip(one, two, strict=True):
        assert mine["final"] == pytest.approx(theirs["final"], abs=1e-5)


def test_events_are_written_for_tensorboard(tmp_path):
    run = RunFolder(tmp_path, "{}", resume=False, tensorboard=True)
    run.log({"phase": 0, "step": 1, "losses": {"final": 1.0}, "validation": {"miou": 0.5}})
    assert run.events is not None
    run.events.close()
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_truncated_log_can_be_read(tmp_path):
    run = RunFolder(tmp_path, "{}", resume=False)
    for step in (10, 20, 30):
        run.log({"phase": 0, "step": step, "losses": {"final": 1.0}})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"phase": 0, "st')
    run.truncate_after(0, 20)
    assert [entry["step"] for entry in run.read_log()] == [10, 20]
    run.finish({"miou": 1}, "# Card\n", record_provenance(["train"]))
    assert json.loads((tmp_path / "metrics.json").read_text())["miou"] == 1


def test_trained_and_holdout_classes_belong_to_the_fold():
    from kshot.data.folds import fold_holdout_classes

    assert set(HOLDOUT) < set(fold_holdout_classes("pascal", 0))
    assert not set(TRAINED) & set(fold_holdout_classes("pascal", 0))
