"""Annotation files as tools really write them: the expected pixels of each, and what is left out.

To add a case, write a function that writes the files and returns what is read:

    @case({"class": BOX}, "1 annotation without an image")
    def coco_of_some_tool(root):
        return coco(root, coco_object(), coco_object(image_id=9))
"""

import json
import unicodedata

import make_tool_files as tools
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_tool_files import (
    BOTTOM,
    BOX,
    CORNERS,
    CVAT_BOX,
    FLAT,
    HEIGHT,
    INCLUSIVE,
    LEFT,
    NONE,
    RIGHT,
    TOP,
    coco,
    coco_counts,
    coco_object,
    colours,
    cvat,
    folders,
    image,
    indices,
    labelme,
    labelme_shape,
    studio,
    studio_bitmask,
    studio_rectangle,
    studio_region,
    studio_strokes,
    voc,
    write,
)
from test_cli import run
from test_reader import complaints

from kshot.annotations.class_names import find_class_names
from kshot.annotations.reader import read_annotations
from kshot.annotations.summary import Omissions
from kshot.data.folder import Folder
from kshot.errors import DataError, ImageError, KshotError

CASES = {}


def case(expected, *left_out, notes=0, image_name="a.png"):
    """Add a case. expected: each class's mask. left_out: as in the summary. notes: how many there are."""

    def add(write_files):
        CASES[write_files.__name__] = (write_files, expected, left_out, notes, image_name)
        return write_files

    return add


@case({"a": BOX}, "1 annotation without an image")
def coco_ids_of_images_as_text(root):
    return coco(root, coco_object(image_id="1"), coco_object(image_id=9))


@case({"a": BOX}, "2 annotations without a class")
def coco_ids_of_classes_as_text(root):
    return coco(
        root, coco_object(category_id="01"), coco_object(category_id=7), coco_object(category_id=None)
    )


@case({"a": BOX}, notes=1)
def coco_of_crowds_alone(root):
    return coco(root, coco_counts(iscrowd=1), coco_counts(iscrowd=1))


@case({"a": BOX}, "1 crowd (iscrowd)")
def coco_of_objects_and_crowds(root):
    return coco(root, coco_object(iscrowd=None), coco_counts(~NONE, iscrowd=1))


@case({"a": BOX}, "1 outline of fewer than 3 points", "2 annotations without an outline")
def coco_of_empty_outlines(root):
    rest = [coco_object(segmentation=[]), coco_object(segmentation=None)]
    return coco(root, coco_object(), coco_object(segmentation=[[1, 1, 2, 2]]), *rest)


@case({"a": BOX}, "1 outline of fewer than 3 points", "1 outline outside of its image")
def coco_of_one_sound_polygon_of_several(root):
    return coco(root, coco_object(segmentation=[[1, 1, 2, 2], FLAT, [50, 1, 60, 1, 60, 9]]))


@case({"a": BOX})
def coco_of_flat_outlines(root):
    return coco(root, coco_object(segmentation=FLAT), coco_object(segmentation=[[x, y] for x, y in CORNERS]))


@case({"a": BOX}, "1 class without objects", "1 image without objects")
def coco_without_sizes(root):
    sizes = [{"height": 0, "width": 0}, {}]
    images = [{"id": n, "file_name": f"{name}.png"} | sizes[n] for n, name in enumerate("ab")]
    classes = [{"id": n, "name": name} for n, name in enumerate("ab")]
    return coco(root, coco_object(image_id=0, category_id=0), images=images, categories=classes)


@case({"a": BOX})
def coco_names_that_lead_out(root):
    return coco(root, coco_object(), files=["..\\..\\upload\\4\\a.png"])


@case({"a": BOX}, image_name="images/0a1b-x.png")
def coco_names_with_a_servers_folder(root):
    return coco(root, coco_object(), files=["..\\..\\upload\\4\\0a1b-x.png"])


@case({"a": BOX})
def coco_names_with_a_servers_prefix(root):
    return coco(root, coco_object(), files=["../../upload/4/0a1b2c3d-a.png"])


@case({"a": BOX})
def coco_names_with_another_folder(root):
    return coco(root, coco_object(), files=["images/1/a.png"])


@case({"a": BOX}, image_name="images/mein bär.png")
def coco_names_in_percent_encoding(root):
    return coco(root, coco_object(), files=["mein%20b%C3%A4r.png"])


@case({"a": BOX}, image_name=unicodedata.normalize("NFD", "bär.png"))
def coco_names_that_are_composed(root):
    return coco(root, coco_object(), files=[unicodedata.normalize("NFC", "bär.png")])


@case({"a": BOX}, image_name=unicodedata.normalize("NFC", "bär.png"))
def cvat_names_that_are_decomposed(root):
    return cvat(root, CVAT_BOX, name=unicodedata.normalize("NFD", "sub/bär.png"))


@case({"a": BOX}, image_name="a%20b.png")
def labelme_names_of_encoded_files(root):
    return labelme(root, labelme_shape("mask", mask_points(), mask=box_png()), imagePath="a b.png")


@case({"a": INCLUSIVE})
def labelme_rectangles_of_four_points(root):
    return labelme(root, labelme_shape("rectangle"))


@case({"a": INCLUSIVE})
def labelme_rotations(root):
    return labelme(root, labelme_shape("rotation", direction=0.3))


@case({"a": INCLUSIVE}, "1 shape of type 'linestrip'", "1 shape of type 'cuboid'")
def labelme_quadrilaterals_and_shapes_without_area(root):
    rest = labelme_shape("linestrip"), labelme_shape("cuboid")
    return labelme(root, labelme_shape("quadrilateral", attributes={}), *rest)


@case({"a": INCLUSIVE}, "1 shape of fewer than 3 points", "1 shape of type 'circle' without its two points")
def labelme_outlines_of_too_few_points(root):
    rest = labelme_shape(points=CORNERS[:2]), labelme_shape("circle", CORNERS[:1])
    return labelme(root, labelme_shape(), *rest)


@case({"a": INCLUSIVE}, "2 objects whose class has no name")
def labelme_labels_that_are_blank(root):
    return labelme(root, labelme_shape(), labelme_shape(label=" "), labelme_shape(label="\n"))


@case({"a": INCLUSIVE}, "2 files of another kind", "1 file that cannot be read")
def labelme_folder_of_kshot(root):
    for name, content in {"settings": '{"kshot": "1"}', "classes": '{"a": 1}', "broken": "{"}.items():
        write(root, f"{name}.json", content)
    return labelme(root, labelme_shape()).parent


@case({"a": BOX}, "1 result of type 'choices'")
def studio_rectangles_with_separate_labels(root):
    value = studio_rectangle()
    rest = studio_region("labels", value), studio_region("choices", {"choices": ["x"]})
    return studio(root, studio_region("rectangle", value), *rest)


@case({"a": BOX})
def studio_polygons_with_separate_labels(root):
    return studio(root, studio_region("labels"), studio_region("polygon"))


@case({"a": BOX}, "1 region without a label", "1 result of type 'labels'")
def studio_brushes_with_separate_labels(root):
    rest = studio_region("brush", studio_strokes(NONE), id="r2"), studio_region("labels", {}, id="r3")
    return studio(root, studio_region("brush", studio_strokes()), studio_region("labels", {}), *rest)


@case({"a": BOX})
def studio_bitmasks(root):
    return studio(root, studio_region("bitmasklabels", studio_bitmask()))


@case({"a": BOX, "b": BOX})
def studio_bitmasks_with_separate_labels(root):
    value = studio_bitmask()
    return studio(root, studio_region("bitmask", value), studio_region("labels", value, labels=["a", "b"]))


@case({"a": BOX, "b": NONE | (np.arange(HEIGHT) < TOP)[:, None]})
def studio_regions_of_one_id(root):
    value = {"x": 0, "y": 0, "width": 100, "height": 100 * TOP / HEIGHT}
    return studio(root, studio_region(), studio_region("rectanglelabels", value, labels=["b"]))


@case(
    {"a": BOX},
    "1 outline of fewer than 3 points",
    "1 prediction of a model",
    "1 result of type 'keypointlabels'",
)
def studio_outlines_of_too_few_points(root):
    rest = studio_region(value={"points": [[1, 1]]}, id="r2"), studio_region("keypointlabels", {}, id="r3")
    return studio(root, studio_region(), *rest, predictions=[{"result": []}])


@case({"a": BOX}, "1 shape of type 'polyline'", "1 tag of a whole image", "1 outline of fewer than 3 points")
def cvat_shapes_without_area(root):
    rest = (
        '<polyline label="a" points="1,2;3,4"/>',
        '<tag label="b"/>',
        '<polygon label="a" points="1,2;3,4"/>',
    )
    return cvat(root, CVAT_BOX, *rest)


@case({"a": BOX})
def cvat_with_a_byte_order_mark(root):
    return write(root, "a.xml", b"\xef\xbb\xbf" + cvat(root, CVAT_BOX).read_bytes())


@case({"cat": BOX}, "1 class without objects")
def voc_with_class_names(root):
    return voc(root, indices(1), class_names="_background_\ncat\ndog\n")


@case({"dog": BOX}, "1 class without objects")
def voc_with_names_that_begin_with_the_ignored(root):
    return voc(root, indices(2), class_names="__ignore__\n_background_\ncat\ndog\n")


@case({"aeroplane": BOX}, "19 classes without objects", notes=1)
def voc_without_class_names(root):
    return voc(root, indices(1))


@case({"dog": BOX}, "1 class without objects")
def voc_with_colours_of_a_label_map(root):
    return voc(root, colours((0, 128, 0)), labelmap=LABEL_MAP)


@case({"cat": BOX}, "1 class without objects")
def voc_with_colours_of_a_palette(root):
    mask = colours((128, 0, 0)).quantize(8)  # its indices are not the lines of the label map
    return voc(root, mask, labelmap=LABEL_MAP)


@case({"dog": BOX}, "1 class without objects")
def voc_with_lines_of_a_label_map(root):
    return voc(root, indices(2), labelmap=LABEL_MAP)


@case({"cat": BOX}, "1 class without objects")
def voc_with_a_label_map_in_another_order(root):
    return voc(root, colours((128, 0, 0)), labelmap="dog:0,128,0::\nbackground:0,0,0::\ncat:128,0,0::\n")


@case({"b": BOX}, "1 class without objects")
def names_that_begin_with_the_background(root):
    return folders(root, indices(2), classes="background\na\nb\n")


@case({"a": BOX}, "1 class without objects")
def names_with_a_byte_order_mark(root):
    return folders(root, indices(1), classes=b"\xef\xbb\xbfa\r\nb\r\n")


@case({"Bär": BOX}, notes=1)
def names_in_latin_1(root):
    return folders(root, indices(1), classes="Bär\n".encode("latin-1"))


@case({"Bär": BOX})
def names_in_utf_16(root):
    return folders(root, indices(1), classes="Background\nBär\n".encode("utf-16"))


@case({"b": BOX}, "1 class without objects", notes=2)
def names_with_blank_lines(root):
    write(root, "classes.json", '{"1": "not used"}')
    return folders(root, indices(2), classes="\na\n\nb\n\n")


@case({"class 1": BOX}, "1 image without a mask", "1 mask without an image", "1 file (.gif)", "1 file (.txt)")
def masks_beside_other_files(root):
    image(root, "images/b.png")
    indices().save(root / "images" / "c.gif")
    folders(root, indices())
    indices().save(root / "masks" / "d.png")
    write(root, "masks/readme.txt", "")
    return root


@case({"class 1": BOX})
def masks_whose_names_are_encoded(root):
    folders(root, indices(), file=unicodedata.normalize("NFD", "b%C3%A4r ä.png"))
    (root / "images" / "a.png").rename(root / "images" / unicodedata.normalize("NFC", "bär ä.png"))
    return root


@case({"class 1": BOX}, "1 folder in the folder of images", "1 mask without an image")
def masks_with_names_in_two_forms(root):
    folders(root, indices(), file="a.PNG")
    image(root, "images/deep/b.png")
    indices(mask=NONE).save(root / "masks" / "%61.png")
    return root


LABEL_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n"


def mask_points():
    return [(LEFT, TOP), (RIGHT - 1, BOTTOM - 1)]


def box_png():
    return tools.png_text(np.ones((BOTTOM - TOP, RIGHT - LEFT), dtype=np.uint8))


@pytest.mark.parametrize("name", CASES)
def test_the_expected_pixels_are_read_and_all_else_is_counted(tmp_path, name):
    write_files, expected, left_out, num_notes, image_name = CASES[name]
    image(tmp_path, image_name)
    annotations = read_annotations(write_files(tmp_path))
    (annotated,) = annotations.images
    _, masks = annotated.read()
    assert set(masks) == set(expected)
    for class_name, mask in expected.items():
        np.testing.assert_array_equal(masks[class_name], mask)
    assert {str(kind) for kind in annotations.summary.left_out} == set(left_out)
    assert len(annotations.summary.notes) == num_notes
    assert annotations.summary.classes == len(expected)


def test_the_command_prints_one_line_and_the_details_on_request(tmp_path, capsys, monkeypatch):
    path = coco(tmp_path, coco_counts(~NONE), coco_object(image_id=7))
    image(tmp_path)
    options = "--support-set", path, "--image-size", 65
    assert run("segment", image(tmp_path, "b.png"), *options, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    line = f"{path}: 1 image, 1 object of 1 class; left out: 1 annotation without an image"
    assert line in printed.splitlines()
    assert "of image 7" not in printed
    monkeypatch.setenv("KSHOT_LOG", "debug")
    assert run("suggest", tmp_path / "b.png", *options, "--json", "-") == 0
    printed = capsys.readouterr()
    assert "Left out: annotation without an image: annotation 1 of image 7" in printed.err.splitlines()
    json.loads(printed.out)  # which nothing else is printed to
    monkeypatch.setenv("KSHOT_LOG", "all")
    assert run("suggest", tmp_path / "b.png", *options) == 2


def test_what_cannot_be_used_is_passed_over_until_nothing_is_left(tmp_path, caplog):
    bad = coco_object(segmentation={"size": [1, 1], "counts": [0, 1]}), coco_object(image_id=2)
    image(tmp_path)
    annotations = read_annotations(coco(tmp_path, coco_object(), *bad, files=["a.png", "gone.png"]))
    omissions = Omissions()
    ((_, masks),) = annotations.read(omissions)
    np.testing.assert_array_equal(masks["a"], BOX)
    assert [str(kind) for kind in omissions.left_out()] == [
        "1 object that cannot be used",
        "1 image that cannot be used",
    ]
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 2
    ((_, mask),) = annotations.examples()["a"]
    np.testing.assert_array_equal(mask, BOX)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])  # its header is sound
    with pytest.raises(ImageError, match=r"a\.png"):
        list(annotations.examples()["a"])
    with pytest.raises(DataError, match=r"annotates nothing.*1 annotation without an outline"):
        read_annotations(coco(tmp_path, coco_object(segmentation=[])))


def test_a_name_alone_does_not_decide_between_several_files(tmp_path):
    path = coco(tmp_path, coco_object(), coco_object(image_id=2), files=["train/a.png", "val/a.png"])
    image(tmp_path, "images/a.png")
    for annotated in read_annotations(path).images:
        with pytest.raises(ImageError, match="is not in"):
            annotated.locate()
    path = coco(tmp_path, coco_object(), files=["other/a.png"])
    image(tmp_path, "images/deep/a.png")
    with pytest.raises(ImageError, match="may be"):
        read_annotations(path).images[0].locate()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": "1", "file_name": "b.png"}]}, "two images"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "two categories"),
    ],
)
def test_an_id_of_two_things_is_an_error(tmp_path, fields, reason):
    with pytest.raises(DataError, match=reason):
        read_annotations(coco(tmp_path, coco_object(), **fields))


def test_evaluations_report_a_folder_too(tmp_path, caplog):
    caplog.set_level("INFO", "kshot")
    folders(tmp_path, colours((0, 128, 0)), labelmap=LABEL_MAP)
    image(tmp_path, "images/b.png")
    fold = Folder(tmp_path).fold()
    assert fold.images == {0: (), 1: ("a",)}
    assert "1 image, 1 object of 1 class; left out: 1 image without a mask" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("labelmap", "cat:1,2\n", "must be a name and a colour"),
        ("labelmap", "cat:1,2,300::\n", "must be a name and a colour"),
        ("labelmap", "cat:1,2,3::\ndog:1,2,3::\n", "two classes the colour"),
        ("labelmap", "cat:1,2,3::\ncat:4,5,6::\n", "names class 2 'cat'"),
        ("labelmap", "background:0,0,0::\n", "names no class"),
        ("labelmap", "cat:9,9,9::\nbackground:0,0,0::\n", "Move the background to the top"),
        ("labelmap", "cat:9,9,9::\n", "has the value 2"),
        ("classes", "", "names no class"),
        ("classes", "a\na\n", "names class 2 'a'"),
        ("classes", "a\x00b\n", "names class 1"),
        ("classes", b"\xff\xfea", "is no text file"),
        ("classes", "a\n", "unknown values"),
    ],
)
def test_names_that_cannot_be_used_are_an_error(tmp_path, name, content, reason):
    number = 1 if "Move" in reason else 2
    with pytest.raises(KshotError, match=reason):
        read_annotations(folders(tmp_path, indices(number), **{name: content}))


SETTINGS = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A folder with the image, for files to be written into."""
    root = tmp_path_factory.mktemp("tools")
    image(root)
    return root


FORMATS = {
    "coco": (
        coco,
        coco_object,
        [
            lambda: coco_object(segmentation=[]),
            lambda: coco_object(segmentation=[[1, 1, 2, 2]]),
            lambda: coco_object(segmentation=[[90, 1, 92, 2, 95, 9]]),
            lambda: coco_object(image_id="x"),
            lambda: coco_object(category_id=5),
            lambda: coco_counts(iscrowd=1),
        ],
    ),
    "labelme": (
        labelme,
        lambda: labelme_shape("mask", mask_points(), mask=box_png()),
        [
            lambda: labelme_shape(points=CORNERS[:2]),
            lambda: labelme_shape("line", CORNERS[:2]),
            lambda: labelme_shape("brush"),
            lambda: labelme_shape("rectangle", CORNERS[:1]),
            lambda: labelme_shape(label=""),
            lambda: labelme_shape(points=[(50, 50), (60, 50), (50, 60)]),
        ],
    ),
    "label studio": (
        studio,
        lambda: studio_region("rectanglelabels", studio_rectangle(), id=None),
        [
            lambda: studio_region(value={"points": []}, id=None),
            lambda: studio_region("keypointlabels", {}, id=None),
            lambda: studio_region("rating", {"rating": 3}, id=None),
            lambda: studio_region("brush", studio_strokes(), id=None),
            lambda: studio_region("labels", {}, id=None),
            lambda: studio_region(labels=[""], id=None),
        ],
    ),
    "cvat": (
        cvat,
        lambda: CVAT_BOX,
        [
            lambda: '<polygon label="a" points=""/>',
            lambda: '<polygon label="a" points="1,1;2,2"/>',
            lambda: '<polyline label="a" points="1,1;2,2"/>',
            lambda: '<skeleton label="a"/>',
            lambda: '<tag label="a"/>',
            lambda: '<box label="" xtl="1" ytl="1" xbr="2" ybr="3"/>',
        ],
    ),
}
"""How a file is written, one sound object, and objects that are left out."""


@pytest.mark.parametrize("name", FORMATS)
@SETTINGS
@given(data=st.data())
def test_every_object_is_read_or_counted(beside, name, data):
    write_file, sound, others = FORMATS[name]
    objects = data.draw(st.lists(st.sampled_from([sound, *others]), max_size=8))
    path = write_file(beside, sound(), *[make() for make in objects])
    annotations = read_annotations(path)
    number = 1 + len(objects)
    sound_ones = 1 + objects.count(sound)
    assert annotations.summary.objects == sound_ones
    assert sum(kind.count for kind in annotations.summary.left_out) == number - sound_ones
    np.testing.assert_array_equal(annotations.images[0].read()[1]["a"], BOX)


NAMES = st.lists(st.text("aZ0éß_-.:", min_size=1, max_size=8), min_size=1, max_size=5, unique=True)


@SETTINGS
@given(
    names=NAMES,
    codec=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]),
    first=st.sampled_from(["", "background\n", "_background_\n"]),
)
def test_names_are_read_in_any_encoding(beside, names, codec, first):
    lines = first + "\n".join(names) + "\n"
    write(beside, "classes.txt", lines.encode(codec))
    found = find_class_names(beside).names
    (beside / "classes.txt").unlink()
    if codec != "cp1252" or found == tuple(names):
        assert found == tuple(names)
    else:
        lines.encode(codec).decode("utf-8")  # it happens to be UTF-8 as well


def damaged(content, count=20):
    """Return variants of a file: cut off, with bytes replaced, and with bytes inserted."""
    for number in range(count):
        at = len(content) * (2 * number + 1) // (2 * count)
        tail = [b"", bytes([number * 12]) + content[at + 1 :], b'"}]<' + content[at:], content[at + 7 :]][
            number % 4
        ]
        yield content[:at] + tail


SOUND = {
    "coco": lambda root: coco(root, coco_object(), coco_counts()),
    "labelme": lambda root: labelme(
        root, labelme_shape(), labelme_shape("mask", mask_points(), mask=box_png())
    ),
    "label studio": lambda root: studio(
        root, studio_region(), studio_region("bitmasklabels", studio_bitmask())
    ),
    "cvat": lambda root: cvat(root, CVAT_BOX, '<polygon label="a" points="1,2;3,4;5,9"/>'),
    "masks": lambda root: folders(root, indices()) / "masks" / "a.png",
    "label map": lambda root: folders(root, colours(), labelmap=LABEL_MAP) / "labelmap.txt",
    "names": lambda root: folders(root, indices(), classes="Bär\ncat\n") / "classes.txt",
}


@pytest.mark.parametrize("name", SOUND)
def test_malformed_files_are_errors_of_one_line(tmp_path, name):
    image(tmp_path)
    path = SOUND[name](tmp_path)
    read = path if path.suffix in (".json", ".xml") else tmp_path
    assert complaints(read) == ""
    found = []
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        found.append(complaints(read))
    assert len(found) == 20
    assert any(found)
    assert not any("\n" in line for line in found)
