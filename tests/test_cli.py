import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_data import iou, scene, two_things
from PIL import Image
from processes import run_alone

from kshot.cli.main import main
from kshot.io.images import read_mask
from kshot.io.overlays import label_image


def run(*arguments):
    """Run the command in this process; return its exit status."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


@pytest.fixture
def photos(tmp_path):
    """Two labelled images, and a folder with three more to segment."""
    for index in range(2):
        picture, mask = scene(left=10 + 30 * index, seed=index)
        picture.save(tmp_path / f"support {index}.png")
        Image.fromarray(mask).save(tmp_path / f"support {index} mask.png")
    for index, name in enumerate(["one.jpg", "deep/two.png", "zwölf drei.png"]):
        path = tmp_path / "queries" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(left=20 + 15 * index, seed=10 + index)[0].save(path)
    return tmp_path


def support_options(photos, count=1):
    options = []
    for index in range(count):
        options += ["--support", photos / f"support {index}.png", photos / f"support {index} mask.png"]
    return options


@pytest.mark.parametrize("shots", [1, 2])
def test_segment_writes_masks_overlays_and_a_contact_sheet(photos, capsys, shots):
    out = photos / "out"
    options = [*support_options(photos, shots), photos / "queries", "--out", out, "--image-size", 353]
    assert run("segment", *options, "--also", "probability") == 0
    stems = ["deep/two", "one", "zwölf drei"]
    expected = {"contact_sheet.png", "confidence.csv", "settings.json", "done.jsonl"}
    for stem in stems:
        expected |= {f"{stem}_{kind}" for kind in ("mask.png", "overlay.png", "probability.npy")}
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == expected
    for index, stem in enumerate(["one", "deep/two", "zwölf drei"]):
        ground_truth = scene(left=20 + 15 * index, seed=10 + index)[1]
        mask = read_mask(out / f"{stem}_mask.png", ground_truth.shape)
        assert iou(mask, ground_truth) > 0.6
        probability = np.load(out / f"{stem}_probability.npy")
        assert probability.dtype == np.float16
        if shots == 1:
            differs = (probability > 0.5) != mask
            assert (probability[differs] == 0.5).all()  # rounded to half precision
    header, *lines = csv.reader((out / "confidence.csv").read_text().splitlines())
    assert header == ["image", "confidence"]
    assert {Path(image).stem for image, _ in lines} == {"one", "two", "zwölf drei"}
    assert [float(sure) for _, sure in lines] == sorted(float(sure) for _, sure in lines)
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 900
    printed = capsys.readouterr().out  # no terminal here: plain lines
    assert "1/3" in printed
    assert "3 of 3 images segmented" in printed
    assert "s left" in printed
    assert "\x1b" not in printed


def test_a_bad_image_is_reported_and_the_others_are_done(photos, capsys):
    (photos / "queries" / "broken.png").write_bytes(b"\x89PNG nothing")
    out = photos / "out"
    assert run("segment", *support_options(photos), photos / "queries", "--out", out) == 1
    (failure,) = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert failure["image"].endswith("broken.png")
    assert "not an image" in failure["reason"]
    assert len(list(out.rglob("*_mask.png"))) == 3
    (photos / "queries" / "broken.png").unlink()
    assert run("segment", *support_options(photos), photos / "queries", "--out", out) == 0
    assert not (out / "failures.jsonl").exists()


def test_several_classes_become_label_images(tmp_path, capsys):
    picture, labels = two_things()
    picture.save(tmp_path / "support.png")
    label_image(labels * np.uint8(3)).save(tmp_path / "labels.png")  # 3 is the disc, 6 the square
    (tmp_path / "queries").mkdir()
    ground_truths = {}
    for name, (red, blue) in {"one": (100, 20), "two": (20, 120)}.items():
        query, ground_truths[name] = two_things(red, blue, seed=red)
        query.save(tmp_path / "queries" / f"{name}.png")
    out = tmp_path / "out"
    support = [
        "--support",
        tmp_path / "support.png",
        tmp_path / "labels.png",
        "--classes",
        "square=6, disc=3",
    ]
    options = [tmp_path / "queries", "--out", out, "--also", "probability"]
    assert run("segment", *support, *options) == 0
    assert json.loads((out / "classes.json").read_text()) == {"square": 6, "disc": 3}
    for name, ground_truth in ground_truths.items():
        with Image.open(out / f"{name}_labels.png") as picture:
            found = np.asarray(picture)
        assert iou(found == 6, ground_truth == 2) > 0.5
        assert iou(found == 3, ground_truth == 1) > 0.5
        probability = np.load(out / f"{name}_probability.npy")
        assert probability.shape == (2, *ground_truth.shape)
        assert (out / f"{name}_overlay.png").exists()
    assert (out / "contact_sheet.png").exists()
    assert "% square, " in capsys.readouterr().out
    for wrong in ("square,disc", "square=", "=6", "a=1,a=2", "a=-1"):
        assert run("segment", *support[:-1], wrong, *options) == 2
        assert "names and values such as cat=1,dog=2" in capsys.readouterr().err


def test_results_for_other_classes_are_not_mixed(tmp_path, capsys):
    picture, labels = two_things()
    picture.save(tmp_path / "things.png")
    label_image(labels).save(tmp_path / "labels.png")
    label_image((labels == 1).astype(np.uint8)).save(tmp_path / "disc.png")

    def segmented(mask, classes, out):
        support = ["--support", tmp_path / "things.png", tmp_path / mask, "--classes", classes]
        return run("segment", *support, tmp_path / "things.png", "--out", tmp_path / out, "--image-size", 97)

    assert segmented("labels.png", "disc=1,square=2", "several") == 0
    assert segmented("disc.png", "disc", "one") == 0
    capsys.readouterr()
    for case in (
        ("disc.png", "disc", "several"),
        ("labels.png", "square=2,disc=1", "several"),
        ("labels.png", "disc=1,square=2", "one"),
    ):
        assert segmented(*case) == 2
        assert "earlier run's results with other settings: classes was" in capsys.readouterr().err
    assert json.loads((tmp_path / "several" / "classes.json").read_text()) == {"disc": 1, "square": 2}
    assert not (tmp_path / "several" / "things_mask.png").exists()
    assert not (tmp_path / "one" / "classes.json").exists()
    assert segmented("labels.png", "disc=1,square=2", "several") == 0  # the same ones again


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        # The mask was forgotten, so the first query stands in its place.
        (["--support", "support 0.png", "queries/one.jpg", "queries/deep/two.png"], "has colours"),
        (["--support", "support 0.png", "support 1.png", "queries/one.jpg"], "has colours"),
        (["--support", "gone.png", "support 0 mask.png", "queries/one.jpg"], "no file 'gone.png'"),
        (["--support", "support 0.png", "support 0 mask.png", "nowhere"], "no file or folder nowhere"),
        (
            ["--support", "support 0.png", "support 0 mask.png", "queries/one.jpg", "other/one.jpg"],
            "would both be written",
        ),
        (
            ["--support", "support 0.png", "support 0 mask.png", "queries/one.jpg", "--model", "gone"],
            "no model or folder 'gone'",
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(photos, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(photos)
    Path("other").mkdir()
    scene()[0].save("other/one.jpg")
    assert run("segment", *arguments, "--out", "out") == 2
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.err.startswith("kshot: ")
    assert "Traceback" not in printed.err
    assert not list(Path("out").rglob("*.png"))


def test_a_support_without_a_mask_is_a_mistake(photos, capsys):
    options = ["--out", photos / "out", photos / "queries"]
    assert run("segment", *options, "--support", photos / "support 0.png") == 2
    assert "--support takes two files: an image and its mask" in capsys.readouterr().err
    assert run("segment", photos / "queries", "--support", photos / "support 0.png", *options[:2]) == 2
    assert "--support takes two files" in capsys.readouterr().err


def test_info_prints_json(capsys):
    assert run("info", "two-pass", "--backbone", "resnet50", "--json", "-") == 0
    description = json.loads(capsys.readouterr().out)
    assert description["trainable_parameters"] == 2_980_711
    assert {"frozen_parameters", "taps"} <= description.keys()
    assert run("info", "hsnet", "--backbone", "efficientnet_lite0") == 0
    assert "stride  8  output of blocks.2.0" in capsys.readouterr().out
    assert run("info", "magic") == 2


def test_help_and_import_are_quick_and_leave_torch_alone():
    check = "import sys, kshot.cli.main as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
    check += "assert not {'torch', 'timm', 'numpy'} & set(sys.modules), 'imported too much'"
    bare = "import typer, pydantic, typer.rich_utils"  # what any command of this kind takes, on this machine
    used: dict[str, list[float]] = {check: [], bare: []}
    for code in (check, bare) * 3:
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        used[code].append(sum(os.times()[2:4]) - sum(before[2:4]))  # processor time of children
    assert min(used[check]) < 3 * min(used[bare])
    subprocess.run([sys.executable, "-c", "import kshot, sys; assert 'torch' not in sys.modules"], check=True)


def test_results_are_never_mistaken_for_images(photos, capsys):
    queries = photos / "queries"
    for _ in range(2):
        assert run("segment", *support_options(photos), queries, "--out", queries / "out") == 0
        assert "3 of 3 images" in capsys.readouterr().out
    assert run("segment", *support_options(photos), queries, "--out", queries) == 2
    assert "Choose another --out" in capsys.readouterr().err


def test_images_that_differ_in_their_suffix_only_are_all_segmented(photos):
    scene(left=40)[0].save(photos / "queries" / "one.png")
    assert run("segment", *support_options(photos), photos / "queries", "--out", photos / "out") == 0
    results = {path.name for path in (photos / "out").glob("one*")}
    assert results == {
        "one.jpg_mask.png",
        "one.jpg_overlay.png",
        "one.png_mask.png",
        "one.png_overlay.png",
    }


def test_a_folder_that_cannot_be_made_is_named(photos, capsys):
    (photos / "file").touch()
    assert run("segment", *support_options(photos), photos / "queries", "--out", photos / "file" / "out") == 2
    assert "cannot be made" in capsys.readouterr().err


def test_masks_of_the_thinnest_images_have_their_size(photos):
    thin, sizes = photos / "thin", [(1, 1), (1, 40), (40, 1), (3, 700)]
    thin.mkdir()
    for width, height in sizes:
        Image.new("RGB", (width, height), (220, 40, 30)).save(thin / f"{width}x{height}.png")
    options = [*support_options(photos), thin, "--image-size", 97]
    for out, tiles in {"whole": [], "tiled": ["--tile", 40, "--long-side", 100]}.items():
        assert run("segment", *options, "--out", photos / out, *tiles) == 0
        for width, height in sizes:
            for kind in ("mask", "overlay"):
                with Image.open(photos / out / f"{width}x{height}_{kind}.png") as picture:
                    assert picture.size == (width, height)
    mask = Image.new("1", (1, 40), 1)
    mask.putpixel((0, 0), 0)
    mask.save(photos / "mask.png")
    own = ["--support", thin / "1x40.png", photos / "mask.png", thin / "1x1.png"]
    assert run("segment", *own, "--out", photos / "own", "--image-size", 97) == 0


def segment_in_a_terminal(options):
    sys.stdout.reconfigure(encoding="utf-8", errors="strict")
    main(["segment", *map(str, options)])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_are_no_text_or_of_several_lines_are_done_and_listed(photos):
    queries, names = photos / "odd", {os.fsdecode(b"caf\xe9.png"), "two\nlines.png", "a\rreturn.png"}
    queries.mkdir()
    for name in names:
        scene()[0].save(queries / name)
    options = [*support_options(photos), queries, "--out", photos / "out", "--image-size", "97"]
    assert run_alone(segment_in_a_terminal, options, log=photos / "stderr.txt").status == 0
    assert {path.name for path in (photos / "out").glob("*_mask.png")} == {
        name.replace(".png", "_mask.png") for name in names
    }
    with (photos / "out" / "confidence.csv").open(newline="", errors="surrogateescape") as table:
        assert {Path(line["image"]).name for line in csv.DictReader(table)} == names
