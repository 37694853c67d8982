import json

import numpy as np
import pytest
from make_data import result_of, settings, tiny_method, write_folder, write_fss, write_pascal
from PIL import Image
from safetensors.torch import save_file
from test_cli import run

from kshot.data.benchmarks import read_fold
from kshot.data.fss1000 import CLASSES
from kshot.evaluation.results import write_result
from kshot.evaluation.selection import selection_fold
from kshot.methods.config import ModelConfig
from kshot.methods.saving import save_model

PAIRS = [(f"im{n}", n % 2) for n in range(8)]


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data", PAIRS, class_names=("ant", "bee"))


QUICK = settings("image_size=65")


def test_episodes_need_no_images(tmp_path, capsys):
    out = tmp_path / "m.json"
    assert (
        run("episodes", "--data", "coco", "--fold", 2, "--shots", 5, "--protocol", "hsnet", "--out", out) == 0
    )
    content = json.loads(out.read_text())
    assert (len(content["episodes"]), content["shots"], content["seed"]) == (1000, 5, 0)
    assert {e["class_id"] % 4 for e in content["episodes"]} == {2}
    assert content["sha256"] in capsys.readouterr().out
    options = ["--protocol", "bam", "--episodes", 7, "--seed", 9, "--out", out]
    assert run("episodes", "--data", "pascal", *options) == 0
    content = json.loads(out.read_text())
    assert (len(content["episodes"]), content["seed"], content["protocol"]) == (7, 9, "bam")


def test_evaluate_scores_a_folder_and_compare_compares(folder, tmp_path, capsys):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    options = ["--data", folder, "--episodes", 6, *settings("seeds=0,4")]
    assert run("evaluate", *options, *QUICK, "--json", first) == 0
    printed = capsys.readouterr().out
    assert "mIoU" in printed
    assert "protocol balanced (65 px squash, scored at original size)" in printed
    content = json.loads(first.read_text())
    assert content["provenance"]["command"].startswith("kshot evaluate --data")
    assert str(tmp_path / "a.json") not in first.read_text()
    assert [r["seed"] for r in content["runs"]] == [0, 4]
    assert content["runs"][0]["num_images"] <= 8
    assert run("evaluate", *options, *settings("image_size=97"), "--json", second) == 0
    assert run("compare", first, second, "--json", tmp_path / "c.json") == 0
    assert "B - A" in capsys.readouterr().out
    assert [d["name"] for d in json.loads((tmp_path / "c.json").read_text())][:2] == ["miou", "fb_iou"]
    assert run("compare", first, second, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "c.json").read_text())
    assert run("evaluate", *options, *QUICK, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["class_iou"] == content["class_iou"]


def test_compare_says_how_checkpoints_were_chosen(tmp_path, capsys):
    write_result(result_of(name="mine", selected_on="novel"), tmp_path / "a.json")
    write_result(result_of(name="theirs"), tmp_path / "b.json")
    assert run("compare", tmp_path / "a.json", tmp_path / "b.json") == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert (
        first == "A: mine, test_resnet (checkpoint chosen on the novel classes themselves, the field's habit)"
    )
    assert second == "B: theirs, test_resnet"


@pytest.mark.parametrize(
    ("form", "start"), [("markdown", "**PASCAL"), ("latex", "\\begin"), ("csv", "Backbone,")]
)
def test_tables_are_made_from_results(tmp_path, capsys, form, start):
    write_result(result_of(name="mine"), tmp_path / "a.json")
    assert run("table", "2", tmp_path / "a.json", "--format", form) == 0
    text = capsys.readouterr().out
    assert text.startswith(start)
    assert "kshot prototype (hsnet protocol, 400 px)" in text
    document = tmp_path / "page.md"
    document.write_text("<!-- begin table-2 -->\n<!-- end table-2 -->\n")
    assert run("table", "2", tmp_path / "a.json", "--format", form, "--into", document) == 0
    assert text.strip() in document.read_text()
    assert run("table", "2", tmp_path / "a.json", "--out", tmp_path / "table.txt") == 0
    assert (tmp_path / "table.txt").read_text().startswith("**PASCAL")
    assert run("table", "list", tmp_path / "gone.json") == 2


def test_a_manifest_fixes_the_episodes(folder, tmp_path, capsys):
    manifest, result = tmp_path / "m.json", tmp_path / "r.json"
    options = ["--protocol", "hsnet", "--episodes", 5, "--shots", 2, "--out", manifest]
    assert run("episodes", "--data", folder, *options) == 0
    options = ["--data", folder, "--manifest", manifest, *QUICK, "--json", result]
    assert run("evaluate", *options) == 0
    content = json.loads(result.read_text())
    assert content["runs"][0]["manifest_sha256"] == json.loads(manifest.read_text())["sha256"]
    assert content["shots"] == 2
    assert (content["protocol"]["name"], content["scored_at"]) == ("hsnet", "network")
    for wrong, reason in (
        (settings("seeds=3"), "leave these options out"),
        (["--protocol", "balanced"], "leave these options out"),
        (["--fold", 1], "--fold is 1, but the manifest's is 0"),
        (["--shots", 5], "--shots is 5, but the manifest's is 2"),
        (settings("split=val"), "--set split is val, but the manifest's is all"),
    ):
        assert run("evaluate", *options, *wrong) == 2
        assert reason in capsys.readouterr().err
    assert run("evaluate", "--data", folder, *settings("seeds=3,3")) == 2
    assert "given twice" in capsys.readouterr().err


@pytest.mark.parametrize("scored_at", ["network", "original"])
def test_pascals_own_lists_are_scored(tmp_path, scored_at):
    pairs = read_fold("pascal", 0).queries
    root = write_pascal(tmp_path / "voc", pairs)
    result = tmp_path / "r.json"
    options = ["--data", "pascal", "--root", root, "--fold", 0, "--protocol", "hsnet", "--episodes", 10]
    assert run("evaluate", *options, *QUICK, *settings(f"scored_at={scored_at}"), "--json", result) == 0
    content = json.loads(result.read_text())
    assert len(content["class_iou"]) == 5
    total = 65 * 65 if scored_at == "network" else 48 * 36
    counts = content["runs"][0]["episodes"]
    sums = np.array(counts["union"]) + np.array(counts["background_intersection"])
    assert (sums < total).all()  # the left column of the ground truth is 255
    assert (sums > 0.95 * total).all()


def test_fss_is_scored(tmp_path):
    root = write_fss(tmp_path / "fss", CLASSES[760:762])
    options = ["--data", "fss1000", "--root", root, "--episodes", 12, *QUICK]
    assert run("evaluate", *options, "--json", tmp_path / "r.json") == 0
    content = json.loads((tmp_path / "r.json").read_text())
    assert len(content["class_iou"]) == 240
    assert sum(content["class_episodes"].values()) == 12


def test_a_place_that_cannot_be_written_is_reported_before_anything_runs(folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    for place, reason in ((tmp_path / "file" / "r.json", "cannot be written"), (tmp_path, "is a folder")):
        assert run("evaluate", "--data", folder, "--model", "gone", "--json", place) == 2
        assert reason in capsys.readouterr().err
    assert run("episodes", "--data", "pascal", "--out", tmp_path / "file" / "m.json") == 2
    assert "file" in capsys.readouterr().err


def test_missing_files_are_reported_before_a_model_runs(tmp_path, capsys):
    write_pascal(tmp_path, [("2007_000033", 0)])
    assert run("evaluate", "--data", "pascal", "--root", tmp_path, "--episodes", 5) == 2
    assert "images are missing" in capsys.readouterr().err
    assert run("evaluate", "--data", "pascal") == 2
    assert "--root DIR" in capsys.readouterr().err


def test_data_check_lists_and_counts(folder, capsys):
    assert run("data", "check", folder) == 0
    printed = capsys.readouterr().out
    assert "8 of 8 (image, class) pairs can be used" in printed
    assert "No problems." in printed
    Image.fromarray(np.full((36, 48), 9, dtype=np.uint8)).save(folder / "masks" / "im0.png")
    (folder / "masks" / "im1.png").unlink()
    assert run("data", "check", folder, "--shots", 5) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("unknown values" in line for line in lines) == 1
    assert sum("has no mask" in line for line in lines) == 1
    assert sum("5-shot episodes need 6" in line for line in lines) == 2
    assert lines[-1] == "4 problems"
    assert run("data", "check", "pascal", "--root", folder) == 2
    assert "JPEGImages" in capsys.readouterr().err


def test_data_prepare_builds_what_evaluate_reads(tmp_path, capsys):
    from test_prepare import write_archives

    write_archives(tmp_path / "archives")
    options = ["--root", tmp_path / "out", "--archives", tmp_path / "archives"]
    assert run("data", "prepare", "pascal", *options) == 0
    assert "masks are in" in capsys.readouterr().out
    assert list((tmp_path / "out" / "VOC2012" / "SegmentationClassAug").glob("*.png"))
    assert run("data", "prepare", "coco", *options) == 2
    assert "only pascal" in capsys.readouterr().err


@pytest.fixture
def checkpoints(tmp_path):
    """Two hsnets with random weights, and their backbone's weights in a file."""
    for seed in (0, 1):
        method = tiny_method("hsnet-cls", seed=0)
        for parameter in method.decoder.parameters():
            parameter.data += 0.1 * seed
        config = ModelConfig(method="hsnet", backbone="test_resnet", image_size=65)
        save_model(config, method, tmp_path / f"step{seed}")
    save_file(
        tiny_method("hsnet-cls", seed=0).cls_backbone.trunk.state_dict(), tmp_path / "backbone.safetensors"
    )
    return [tmp_path / "step0", tmp_path / "step1"]


@pytest.mark.parametrize("select_on", ["base", "novel"])
def test_choose_writes_down_what_a_checkpoint_was_chosen_on(checkpoints, tmp_path, capsys, select_on):
    pairs = selection_fold("pascal", 0, select_on).queries[:9]
    root = write_pascal(tmp_path / "voc", pairs)
    options = ["--data", "pascal", "--root", root, "--select-on", select_on, "--episodes", 4]
    options += ["--backbone-weights", tmp_path / "backbone.safetensors", "--out", tmp_path / "best"]
    assert run("choose", *checkpoints, *options) == 0
    assert "chosen on" in capsys.readouterr().out
    config = json.loads((tmp_path / "best" / "config.json").read_text())
    assert config["selected_on"] == select_on
