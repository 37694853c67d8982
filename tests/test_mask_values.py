"""What a mask means: one line a case. `SIZE` masks whose object is BOXES, or a part of the error."""

import json
import logging

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from make_data import scene
from PIL import Image

from kshot.annotations.folders import MaskFolders
from kshot.errors import DataError, KshotError, MaskError
from kshot.io.images import read_label_map, read_mask

SIZE = 20, 30


def boxes(*values, dtype=np.uint8, background=0):
    """Draw a box of each value, apart from one another, at fixed places."""
    drawn = np.full(SIZE, background, dtype)
    for number, value in enumerate(values):
        drawn[2 + 4 * number : 5 + 4 * number, 4:20] = value
    return drawn


BOXES = boxes(1) > 0
LABELS = boxes(1, 2, 300, dtype=np.uint16)


def image(values, mode=None, palette=None):
    one = Image.fromarray(values)
    if palette:
        one.putpalette(palette)
    return one.convert(mode) if mode else one


def with_alpha(values, alpha):
    return np.stack([values] * 3 + [alpha], axis=-1).astype(np.uint8)


WHITE_FIRST, BLACK_FIRST = [255, 255, 255, 0, 0, 0], [0, 0, 0, 255, 255, 255]
VOC = [0, 0, 0, 128, 0, 0] + 253 * [9, 9, 9] + [224, 224, 192]

ACCEPTED = {
    "bools": BOXES,
    "floats of 0 and 1": BOXES.astype(np.float32),
    "(H, W, 1)": BOXES[..., None],
    "(1, H, W)": boxes(255)[None],
    "16 bits of two values": boxes(65535, dtype=np.uint16),
    "equal channels": np.stack([boxes(255)] * 3, axis=-1),
    "equal channels, opaque": with_alpha(boxes(255), np.full(SIZE, 255)),
    "transparent background": with_alpha(boxes(255), boxes(255)),
    "RGB": image(boxes(255), "RGB"),
    "RGBA": image(boxes(255), "RGBA"),
    "LA": image(boxes(7), "LA"),
    "float image": image(BOXES.astype(np.float32)),
    "class number and 255": np.where(boxes(0, 1) > 0, 255, boxes(3)).astype(np.uint8),
    "VOC's palette": image(np.where(boxes(0, 1) > 0, 255, boxes(1)).astype(np.uint8), palette=VOC),
    "palette, black first": image(boxes(1), palette=BLACK_FIRST),
    "one bit": image(BOXES),
}

REFUSED = {
    "0, 100 and 255": (boxes(100, 255), r"100, 255.*--classes"),
    "grey palette": (image(boxes(100, 255), palette=[n for n in range(256) for _ in "rgb"]), "100, 255"),
    "16-bit grey levels": (boxes(25700, 65535, dtype=np.uint16), r"25700, 65535\) in 16 bits.*--classes"),
    "255 among ids": (boxes(2, 255, dtype=np.uint16), r"2, 255\) in 16 bits"),
    "all 255": (np.full(SIZE, 255, np.uint8), r"every pixel: all are 255.*--classes object=255"),
    "all 1": (np.ones(SIZE, np.uint8), "every pixel"),
    "one bit, all set": (image(np.ones(SIZE, bool)), "every pixel"),
    "white first": (image(boxes(1), palette=WHITE_FIRST), "ambiguous.*background=1,object=0"),
    "1 and 2": (boxes(2, background=1), r"no background.*\(1, 2\).*background=1,object=2"),
    "1 and 255": (boxes(255, background=1), "no background"),
    "negative": (boxes(-1, dtype=np.int64), "negative values"),
    "ids of 64 bits": (boxes(1, 2, 300, dtype=np.int64), "3 object values .*64 bits"),
    "16-bit photo": (np.arange(600, dtype=np.uint16).reshape(SIZE), "599 object values .*16 bits"),
    "fractions": (boxes(0.5, dtype=np.float64), "no integers, such as 0.5"),
    "colours": (np.stack([boxes(255), boxes(0), boxes(0)], axis=-1), r"colours such as \(255, 0, 0\)"),
    "mask in the transparency": (with_alpha(boxes(0), boxes(255)), "transparent pixels"),
    "text": (np.full(SIZE, "a"), "must be"),
}


@pytest.mark.parametrize("source", ACCEPTED.values(), ids=ACCEPTED)
def test_unambiguous_masks_are_read(source):
    np.testing.assert_array_equal(read_mask(source, SIZE), BOXES)


@pytest.mark.parametrize(("source", "reason"), REFUSED.values(), ids=REFUSED)
def test_ambiguous_masks_are_refused_with_their_values(source, reason):
    with pytest.raises(MaskError, match=reason):
        read_mask(source, SIZE)


@pytest.mark.parametrize("kind", ["png", "tif", "array", "int32"])
def test_ids_of_16_bits_are_instances_of_one_class(tmp_path, kind, caplog):
    source = LABELS.astype(np.int32) if kind == "int32" else LABELS
    if kind in ("png", "tif"):
        source = tmp_path / f"a.{kind}"
        Image.fromarray(LABELS).save(source)
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(read_mask(source, SIZE), LABELS > 0)
    assert "3 object values (1, 2, 300) in 16 bits" in caplog.text or "in 32 bits" in caplog.text
    with pytest.raises(MaskError, match="3 object values"):  # of volumes and maps they may be classes
        read_mask(source, SIZE, may_be_instances=False)


def test_16_bits_in_equal_colours_keep_their_low_bytes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([LABELS] * 3, axis=-1), photometric="rgb")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif", SIZE), LABELS > 0)


def test_a_declared_nodata_value_is_background(tmp_path):
    values = boxes(1, background=-9999, dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-9999", True)])
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tif", SIZE), BOXES)


def test_the_meaning_of_values_can_be_stated():
    def stated(source, **classes):
        return read_label_map(source, SIZE, classes)

    grey = boxes(100, 255)
    assert stated(grey, part=100, object=255)["object"].sum() == (grey == 255).sum()
    assert stated(grey, object=100)["object"].sum() == (grey == 100).sum()  # 255 is ignored
    assert stated(np.full(SIZE, 255, np.uint8), object=255)["object"].all()
    found = stated(image(boxes(1), palette=WHITE_FIRST), background=1, object=0)
    np.testing.assert_array_equal(found["object"], ~BOXES)
    found = stated(boxes(2, background=1), background=1, object=2)
    assert list(found) == ["object"]
    np.testing.assert_array_equal(found["object"], BOXES)
    with pytest.raises(MaskError, match="0 is the background"):
        stated(grey, object=0)


def write_folder(root, **masks):
    for name, values in masks.items():
        for folder in ("images", "masks"):
            (root / folder).mkdir(exist_ok=True)
        scene(width=SIZE[1], height=SIZE[0])[0].save(root / "images" / f"{name}.png")
        Image.fromarray(values).save(root / "masks" / f"{name}.png")
    return MaskFolders(root / "images", root / "masks")


@pytest.mark.parametrize("names", [None, "cell"])
def test_a_folder_of_label_images_has_one_class(tmp_path, names):
    if names:
        (tmp_path / "classes.txt").write_text(names)
    folder = write_folder(tmp_path, a=LABELS, b=boxes(7, dtype=np.uint16))
    assert folder.class_names == (names or "object",)
    assert folder.classes_in("a") == folder.classes_in("b") == (0,)
    np.testing.assert_array_equal(folder.ground_truth("a", 0), LABELS > 0)


def test_a_folder_of_one_named_class_may_be_black_and_white(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"1": "cup"}))
    folder = write_folder(tmp_path, a=boxes(255))
    np.testing.assert_array_equal(folder.ground_truth("a", 0), BOXES)


def test_a_folder_whose_masks_differ_in_meaning_is_refused(tmp_path):
    with pytest.raises(DataError, match="instances or classes"):
        write_folder(tmp_path, a=LABELS, b=boxes(1, 2))
    (tmp_path / "masks" / "cup").mkdir()
    Image.fromarray(boxes(100, 255)).save(tmp_path / "masks" / "cup" / "a.png")
    with pytest.raises(MaskError, match="100, 255"):
        MaskFolders(tmp_path / "images", tmp_path / "masks").ground_truth("a", 0)


KINDS = st.sampled_from(["bool", "uint8", "uint16", "int16", "int32", "int64", "float32", "float64"])


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(
    KINDS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=1, max_dims=3, max_side=5)))
)
def test_any_array_is_read_as_it_is_or_refused(values):
    size = values.shape[:2] if values.ndim > 1 else (1, 1)
    try:
        found = read_mask(values, size, may_be_empty=True)
    except KshotError:
        return
    flat = values.reshape(*size, -1)[..., 0] if values.shape[:2] == size else values.reshape(size)
    assert not found[flat == 0].any()
    assert found[(flat != 0) & (flat != 255)].all()
