"""Every format that results are written in, read back by its own library, by its rules, and by kshot."""

import json
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from make_data import colour_segmenter, two_things
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from test_cli import run
from test_instances import blobs, found_in, place

from kshot.annotations.reader import read_annotations
from kshot.annotations.writers import coco_document, labelme_document
from kshot.annotations.writers.formats import FORMATS
from kshot.annotations.writers.voc import voc_colour
from kshot.annotations.writers.yolo import join_rings
from kshot.io.overlays import label_image
from kshot.results import SegmentationResult
from kshot.segmenter import Segmenter

VALUES = {"box": 24, "blob": 23}
SIZE = 60, 80


def result_of(seed=0):
    """Return blobs with holes and a thin box, which do not overlap; the classes' values are not 1 and 2."""
    blob, box = blobs(seed), np.zeros(SIZE, dtype=bool)
    box[50:56, 2:12] = True
    labels = np.where(box, 24, np.where(blob, 23, 0)).astype(np.uint8)
    probabilities = np.stack([np.where(labels == v, 0.5 + v / 100, 0.25) for v in VALUES.values()])
    return SegmentationResult(
        labels, probabilities.astype(np.float32), tuple(VALUES), class_values=tuple(VALUES.values())
    )


def without_specks(mask):
    return np.any([np.zeros_like(mask), *(place(one, mask.shape) for one in found_in(mask))], axis=0)


def wanted_masks(result):
    return {name: without_specks(result.of_class(name).mask) for name in result.class_names}


def test_pycocotools_reads_the_same_masks(tmp_path, capsys):
    results = {"a.jpg": result_of(0), "deep/b.png": result_of(1), "c.jpg": result_of(2)}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco_document(iter(results.items()), VALUES)))
    coco = COCO(str(path))
    capsys.readouterr()
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {24: "box", 23: "blob"}
    for image, (name, given) in zip(coco.loadImgs(coco.getImgIds()), results.items(), strict=True):
        assert (image["file_name"], image["height"], image["width"]) == (name, *SIZE)
        for class_name, wanted in wanted_masks(given).items():
            union = np.zeros(SIZE, dtype=bool)
            for found in coco.loadAnns(coco.getAnnIds([image["id"]], [VALUES[class_name]])):
                mask = coco.annToMask(found).astype(bool)
                assert (found["area"], found["iscrowd"]) == (mask.sum(), 0)
                assert isinstance(found["segmentation"]["counts"], str)
                assert found["score"] == pytest.approx(0.5 + VALUES[class_name] / 100, abs=1e-4)
                assert not (union & mask).any()
                union |= mask
            np.testing.assert_array_equal(union, wanted)
    assert len({found["id"] for found in coco.loadAnns(coco.getAnnIds())}) == len(coco.getAnnIds())


def test_labelme_shapes_are_polygons_and_masks_of_what_has_holes():
    mask = np.zeros((40, 50), dtype=bool)
    mask[5:15, 5:20] = mask[20:35, 20:40] = True
    mask[25:30, 25:30] = False
    result = SegmentationResult.of_one_class(mask, mask.astype(np.float32), "ring")
    document = labelme_document("../a.jpg", result)
    assert document["imagePath"] == "../a.jpg"
    assert document["imageData"] is None
    assert (document["imageHeight"], document["imageWidth"]) == (40, 50)
    box, ring = document["shapes"]
    assert (box["label"], box["shape_type"], box["mask"]) == ("ring", "polygon", None)
    drawn = Image.new("1", (50, 40))
    ImageDraw.Draw(drawn).polygon([tuple(point) for point in box["points"]], outline=1, fill=1)
    np.testing.assert_array_equal(np.asarray(drawn)[:18], mask[:18])
    assert (ring["shape_type"], ring["points"]) == ("mask", [[20, 20], [39, 34]])


def files_of(name, results, tmp_path):
    """Write results in a format, as a run does; the images are beside the files."""
    form = FORMATS[name]
    form.check_libraries()
    entries = []
    for stem, result in results.items():
        instances = result.instances(tolerance=0)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / f"{stem}.png")
        for pattern, content in form.image_files.items():
            path = tmp_path / pattern.format(name=stem)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content(f"{stem}.png", result, instances))
        if form.entry:
            entries.append(json.loads(json.dumps(form.entry(f"{stem}.png", result, instances))))
    for file, run_content in form.run_files.items():
        (tmp_path / file).write_bytes(run_content(entries, VALUES))
    for file, class_content in form.class_files.items():
        (tmp_path / file).write_bytes(class_content(VALUES))
    return tmp_path


READ = {
    "coco": "instances.json",
    "labelme": "",
    "cvat": "cvat.xml",
    "label-studio": "label_studio.json",
}
"""What kshot's readers are given of each format."""


@pytest.mark.parametrize("name", READ)
def test_kshot_reads_what_it_writes_pixel_by_pixel(tmp_path, name):
    results = {"a": result_of(0), "b": result_of(3)}
    annotations = read_annotations(files_of(name, results, tmp_path) / READ[name])
    assert set(annotations.class_names) == set(VALUES)
    for image in annotations.images:
        source, masks = image.read()
        for class_name, wanted in wanted_masks(results[Path(str(source)).stem]).items():
            np.testing.assert_array_equal(masks[class_name], wanted)


def draw_yolo(line, size):
    """Rasterize a line of YOLO's labels as its trainer does: lower pixels, even-odd, with border."""
    values = np.array(line.split()[1:], float).reshape(-1, 2) * size[::-1]
    points = [tuple(map(int, point)) for point in values]
    image = Image.new("1", size[::-1])
    ImageDraw.Draw(image).polygon(points, outline=1, fill=1)
    return np.asarray(image)


@pytest.mark.parametrize("seed", range(4))
def test_yolo_polygons_have_the_masks_pixels_and_holes(tmp_path, seed):
    result = result_of(seed)
    folder = files_of("yolo", {"a": result}, tmp_path)
    lines = (folder / "labels" / "a.txt").read_text().splitlines()
    assert '  0: "box"\n  1: "blob"\n' in (folder / "data.yaml").read_text()
    instances = result.instances()
    assert len(lines) == len(instances)
    for line, one in zip(lines, instances, strict=True):
        assert line.split()[0] == str(result.class_names.index(one.class_name))
        values = np.array(line.split()[1:], float)
        assert len(values) >= 6
        assert ((values > 0) & (values < 1)).all()
        np.testing.assert_array_equal(draw_yolo(line, SIZE), place(one, SIZE))


def test_a_hole_in_a_hole_is_cut_to_the_nearest_ring():
    outline = [(0, 0), (20, 0), (20, 20), (0, 20)]
    near, far = [(2, 2), (6, 2), (6, 6), (2, 6)], [(9, 9), (12, 9), (12, 12), (9, 12)]
    assert join_rings([outline]) == outline
    joined = join_rings([outline, far, near])
    assert len(joined) == 4 + 2 * (4 + 2)
    image = Image.new("1", (21, 21))
    ImageDraw.Draw(image).polygon(joined, fill=1, outline=1)
    assert [image.getpixel(place) > 0 for place in ((4, 4), (10, 10), (8, 3), (15, 15))] == [0, 0, 1, 1]


def test_cvats_file_has_what_cvat_asks_for(tmp_path):
    result = result_of(0)
    root = ElementTree.parse(files_of("cvat", {"a": result}, tmp_path) / "cvat.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [one.findtext("name") for one in root.iterfind("meta/task/labels/label")] == list(VALUES)
    (image,) = root.iterfind("image")
    assert image.attrib == {"id": "0", "name": "a.png", "width": "80", "height": "60"}
    masks = image.findall("mask")
    assert len(masks) == len(result.instances())
    for mask, one in zip(masks, result.instances(), strict=True):
        left, top, right, bottom = one.box
        fields = {name: int(mask.attrib[name]) for name in ("left", "top", "width", "height")}
        assert fields == {"left": left, "top": top, "width": right - left, "height": bottom - top}
        runs = [int(run) for run in mask.attrib["rle"].split(",")]
        drawn = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(one.mask.shape)
        np.testing.assert_array_equal(drawn, one.mask)
        assert {"label", "source", "occluded", "z_order"} <= mask.attrib.keys()
        assert mask.findtext("attribute[@name='score']") == f"{one.score:.4f}"


def test_names_that_xml_cannot_hold_are_escaped():
    entry = FORMATS["cvat"].entry("two\nlines \udce9\x01.png", result_of(), [])
    content = FORMATS["cvat"].run_files["cvat.xml"]([entry], VALUES)
    (image,) = ElementTree.fromstring(content).iterfind("image")
    assert image.get("name").isprintable()


def test_label_studios_tasks_have_regions_that_its_configuration_names(tmp_path):
    result = result_of(0)
    folder = files_of("label-studio", {"a b": result}, tmp_path)
    (task,) = json.loads((folder / "label_studio.json").read_text())
    config = ElementTree.parse(folder / "label_studio_config.xml").getroot()
    image, brush = config.find("Image"), config.find("BrushLabels")
    assert task["data"] == {image.get("value")[1:]: "/data/local-files/?d=a%20b.png"}
    (annotation,) = task["annotations"]
    regions = annotation["result"]
    assert len({region["id"] for region in regions}) == len(regions) == len(result.instances())
    labels = {label.get("value") for label in brush.iterfind("Label")}
    for region, one in zip(regions, result.instances(), strict=True):
        assert (region["from_name"], region["to_name"]) == (brush.get("name"), image.get("name"))
        assert set(region["value"]["brushlabels"]) <= labels
        assert region["score"] == pytest.approx(one.score, abs=1e-4)


def test_vocs_folders_have_the_palette_that_labelmap_names(tmp_path):
    result = result_of(0)
    folder = files_of("voc", {"a": result}, tmp_path)
    lines = [line for line in (folder / "labelmap.txt").read_text().splitlines() if line[0] != "#"]
    fields = [line.split(":") for line in lines]
    assert [line[0] for line in fields] == ["background", "box", "blob"]
    colours = {line[0]: tuple(map(int, line[1].split(","))) for line in fields}
    assert (voc_colour(1), voc_colour(15), voc_colour(20)) == ((128, 0, 0), (192, 128, 128), (0, 64, 128))
    with Image.open(folder / "SegmentationClass" / "a.png") as mask:
        assert mask.mode == "P"
        numbers, pixels = np.asarray(mask), np.asarray(mask.convert("RGB"))
    for number, name in enumerate(VALUES, 1):
        own = result.of_class(name).mask
        np.testing.assert_array_equal(numbers == number, own)
        np.testing.assert_array_equal((pixels == colours[name]).all(axis=-1), own)
    with Image.open(folder / "SegmentationObject" / "a.png") as objects:
        ids = np.asarray(objects)
    for one in result.instances():
        np.testing.assert_array_equal(ids == one.id, place(one, SIZE))


def test_the_command_writes_every_format_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda name, **_: colour_segmenter())
    image, labels = two_things()
    Path("photos/deep").mkdir(parents=True)
    image.save("support.png")
    label_image(np.array([0, 24, 23], np.uint8)[labels]).save("labels.png")
    for name in ("photos/a.jpg", "photos/deep/b.jpg"):
        image.save(name)
    command = ["segment", "--support", "support.png", "labels.png", "--classes", "giraffe=24,zebra=23"]
    command += ["photos", "--out", "out", "--also", ",".join(FORMATS), "--instances", "split,min_area=4"]
    assert run(*command) == 0
    assert json.loads(Path("out/classes.json").read_text()) == {"giraffe": 24, "zebra": 23}
    with Image.open("out/deep/b_labels.png") as found:
        assert set(np.unique(found)) <= {0, 23, 24}
        assert (np.asarray(found) == 24).any()
    categories = json.loads(Path("out/instances.json").read_text())["categories"]
    assert categories == [{"id": 24, "name": "giraffe"}, {"id": 23, "name": "zebra"}]
    for name in ("instances.json", "cvat.xml", "label_studio.json"):
        annotations = read_annotations(Path("out", name), Path("photos"))
        assert {one.name for one in annotations.images} == {"a.jpg", "deep/b.jpg"}
        assert all(one.read() for one in annotations.images)
    (labelme,) = read_annotations(Path("out/deep/b.json")).images
    assert labelme.locate().resolve() == Path("photos/deep/b.jpg").resolve()
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    Path("out/labels/a.txt").unlink()
    Path("out/SegmentationClass/deep/b.png").unlink()
    assert run(*command) == 0
    after = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert {path for path in before if before[path] != after[path]} <= {Path("out/done.jsonl")}
    capsys.readouterr()
    assert run(*command[:-1], "min_area=5") == 2
    assert "other settings: instances" in capsys.readouterr().err


def test_what_a_format_cannot_hold_is_named(tmp_path):
    crowded = np.zeros((80, 300), bool)
    crowded[::4, ::4] = True
    result = SegmentationResult.of_one_class(crowded, crowded.astype(np.float32))
    write = FORMATS["voc"].image_files["SegmentationObject/{name}.png"]
    with pytest.raises(Exception, match="1500 instances, but VOC's masks hold 254"):
        write("a.png", result, result.instances(min_area=1))
    with Image.open(BytesIO(write("a.png", result, result.instances(min_area=2)))) as mask:
        assert not np.asarray(mask).any()
