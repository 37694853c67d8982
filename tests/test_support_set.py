import json

import numpy as np
import pytest
from make_annotations import write_annotated
from make_data import iou, scene, two_things
from PIL import Image
from test_cli import run

from kshot.annotations.reader import read_annotations
from kshot.io.overlays import label_image, mask_image


@pytest.fixture
def queries(tmp_path):
    """Two images to segment, with the masks of their red discs."""
    ground_truths = {}
    for name, (red, blue) in {"one": (100, 20), "deep/two": (20, 120)}.items():
        picture, labels = two_things(red, blue, seed=red)
        (tmp_path / "queries" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "queries" / f"{name}.png")
        ground_truths[name] = labels
    return ground_truths


def test_an_annotation_file_gives_labels_and_files_that_it_can_be_replaced_by(tmp_path, queries, capsys):
    path = write_annotated(tmp_path / "labels", "cvat")
    out = tmp_path / "out"
    options = [tmp_path / "queries", "--image-size", 257, "--also", "coco, labelme,probability"]
    assert run("segment", "--support-set", path, *options, "--out", out) == 0
    assert json.loads((out / "classes.json").read_text()) == {"square": 1, "disc": 2}
    written = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert {"instances.json", "one.json", "deep/two.json", "deep/two_probability.npy"} <= written
    coco = read_annotations(out / "instances.json", tmp_path / "queries")
    assert [one.name for one in coco.images] == ["deep/two.png", "one.png"]
    for one in coco.images:
        name = one.name.removesuffix(".png")
        _, masks = one.read()
        with Image.open(out / f"{name}_labels.png") as picture:
            labels = np.asarray(picture)
        for label, class_name in enumerate(coco.class_names, 1):
            assert iou(masks[class_name], labels == label) > 0.98  # all but specks
        assert iou(masks["disc"], queries[name] == 1) > 0.5
        source, found = read_annotations(out / f"{name}.json").images[0].read()
        assert source.resolve() == (tmp_path / "queries" / f"{name}.png").resolve()
        assert iou(found["disc"], masks["disc"]) > 0.95
    folder = read_annotations(out)
    assert folder.count_images() == {"disc": 2, "square": 2}
    assert "3 files of another kind" in str(folder.summary)  # instances, classes and settings
    again = ["--support-set", out / "instances.json", "--support-images", tmp_path / "queries"]
    assert run("segment", *again, *options[:3], "--out", tmp_path / "again") == 0
    assert "2 of 2 images segmented" in capsys.readouterr().out


@pytest.mark.usefixtures("queries")
def test_one_class_gives_masks(tmp_path):
    path = write_annotated(tmp_path / "labels", "labelme")
    common = [tmp_path / "queries", "--image-size", 257, "--also", "coco"]
    assert run("segment", "--support-set", path, "--classes", "disc", *common, "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "one_mask.png").exists()
    assert not (tmp_path / "out" / "classes.json").exists()
    assert json.loads((tmp_path / "out" / "instances.json").read_text())["categories"] == [
        {"id": 1, "name": "disc"}
    ]
    picture, mask = scene()
    picture.save(tmp_path / "a.png")
    mask_image(mask).save(tmp_path / "a_mask.png")
    pair = ["--support", tmp_path / "a.png", tmp_path / "a_mask.png"]
    for options, name in (([], "object"), (["--classes", "disc"], "disc")):
        assert run("segment", *pair, *options, *common, "--out", tmp_path / name) == 0
        content = json.loads((tmp_path / name / "instances.json").read_text())
        assert [category["name"] for category in content["categories"]] == [name]


@pytest.mark.usefixtures("queries")
def test_more_images_of_a_class_than_are_used_are_reported(tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / "labels" / folder).mkdir(parents=True)
    picture, labels = two_things()
    for number in range(22):
        picture.save(tmp_path / "labels" / "images" / f"{number}.png")
        label_image(np.where(labels == 1 + number // 21, labels, 0).astype(np.uint8)).save(
            tmp_path / "labels" / "masks" / f"{number}.png"
        )
    options = [tmp_path / "queries" / "one.png", "--image-size", 65, "--out", tmp_path / "out"]
    assert run("segment", "--support-set", tmp_path / "labels", *options) == 0
    printed = capsys.readouterr().out
    assert "Class 'class 1' has 21 images; the first 20 are used." in printed
    assert "'class 2' has" not in printed


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "Give labelled examples: --support IMAGE MASK, or --support-set"),
        (["--support-set", "labels", "--support", "a.png", "b.png"], "exclude each other"),
        (["--support", "a.png", "b.png", "--support-images", "."], "--support-images is the folder of"),
        (["--support-set", "gone"], "no file or folder gone"),
        (["--support-set", "labels", "--classes", "disc=1"], "with --support-set it must be names alone"),
        (
            ["--support-set", "labels", "--classes", "disk"],
            "'disk' is not annotated. Annotated are: disc, square",
        ),
        (["--support-set", "labels", "--also", "yolov"], "--also is 'yolov'; it must be one or more of"),
        (
            ["--support-set", "labels", "queries/classes.png", "--also", "labelme"],
            "has a name that the results need",
        ),
    ],
)
@pytest.mark.usefixtures("queries")
def test_a_users_mistake_is_one_line(tmp_path, monkeypatch, capsys, options, reason):
    monkeypatch.chdir(tmp_path)
    write_annotated(tmp_path / "labels", "coco")
    scene()[0].save("queries/classes.png")
    assert run("segment", *options, "queries/one.png", "--out", "out") == 2
    printed = capsys.readouterr().err
    assert reason in printed
    assert printed.count("\n") == 1


@pytest.mark.usefixtures("queries")
def test_an_object_that_is_too_small_is_named_with_its_image(tmp_path, capsys):
    path = write_annotated(tmp_path / "labels", "coco")
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[12, 12, 13, 12, 13, 13, 12, 13]]
    path.write_text(json.dumps(content))
    options = [tmp_path / "queries", "--image-size", 33, "--out", tmp_path / "out"]
    assert run("segment", "--support-set", path, *options) == 2
    assert "table.png' is too small: its 1 pixels of 180 x 90" in capsys.readouterr().err


@pytest.mark.usefixtures("queries")
def test_a_negative_is_an_image_with_an_empty_mask(tmp_path, capsys):
    picture, labels = two_things()
    picture.save(tmp_path / "a.png")
    mask_image(labels == 1).save(tmp_path / "a_mask.png")
    picture.crop((100, 0, 180, 90)).save(tmp_path / "not.png")
    mask_image(np.zeros((90, 80), bool)).save(tmp_path / "nothing.png")
    pair = ["--support", tmp_path / "a.png", tmp_path / "a_mask.png"]
    same = ["--support", tmp_path / "not.png", tmp_path / "nothing.png"]
    common = [tmp_path / "queries" / "one.png", "--image-size", 257, "--also", "probability"]
    results = {}
    for name, more in {"without": [], "negative": ["--negative", tmp_path / "not.png"], "mask": same}.items():
        assert run("segment", *pair, *more, *common, "--out", tmp_path / name) == 0
        results[name] = np.load(tmp_path / name / "one_probability.npy")
    np.testing.assert_array_equal(results["negative"], results["mask"])
    assert results["mask"].sum() < results["without"].sum()
    assert run("segment", *same, *common, "--out", tmp_path / "none") == 2
    assert "Every mask is empty" in capsys.readouterr().err
    assert run("suggest", *pair, *same, *common[:3]) == 0
