import json
from pathlib import Path

import numpy as np
import pytest
from make_annotations import labelme_content, png_text, write_annotated
from make_data import two_things
from test_rasterize import decode_run_lengths
from test_writers import result_of, without_specks

from kshot.annotations.reader import read_annotations
from kshot.annotations.writers import labelme_document
from kshot.errors import DataError, ImageError, MaskError
from kshot.io.images import read_image

GOLDEN = json.loads((Path(__file__).parent / "golden" / "labelme_shapes.json").read_text())


def write(tmp_path, *shapes, **fields):
    content = labelme_content() | {"shapes": [{"label": "a", **shape} for shape in shapes], **fields}
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path / "a.json"


@pytest.mark.parametrize("shape", GOLDEN["shapes"], ids=lambda shape: shape["shape_type"])
def test_shapes_are_drawn_as_by_labelme_itself(tmp_path, shape):
    path = write(tmp_path, shape)
    (image,) = read_annotations(path).images
    size = GOLDEN["height"], GOLDEN["width"]
    wanted = decode_run_lengths(shape["counts"], size[0] * size[1]).reshape(size)
    np.testing.assert_array_equal(image.shapes[0].draw(size), wanted)


def test_what_we_write_is_read_back(tmp_path):
    given = result_of(0)
    (tmp_path / "table.json").write_text(json.dumps(labelme_document("table.png", given)))
    (image,) = read_annotations(tmp_path / "table.json").images
    assert (image.name, image.size) == ("table.png", (60, 80))
    for name in image.class_names:
        found = image.only([name]).shapes
        union = np.any([shape.draw((60, 80)) for shape in found], axis=0)
        wanted = without_specks(given.of_class(name).mask)
        assert (union & wanted).sum() / (union | wanted).sum() > 0.96


def test_the_embedded_image_is_used_if_the_file_is_missing(tmp_path):
    path = write_annotated(tmp_path, "labelme-embedded")
    source, _ = read_annotations(path).images[0].read()
    np.testing.assert_array_equal(np.asarray(source), np.asarray(two_things()[0]))
    two_things(red=60)[0].save(tmp_path / "images" / "table.png")
    source, _ = read_annotations(path).images[0].read()
    np.testing.assert_array_equal(np.asarray(read_image(source)), np.asarray(two_things(red=60)[0]))
    box = {"shape_type": "rectangle", "points": [[1, 1], [2, 2]]}
    for data, reason in (("?", "no base64"), ("AAAA", r"a\.json's imageData is not an image")):
        with pytest.raises(ImageError, match=reason):
            read_annotations(write(tmp_path, box, imagePath="gone.png", imageData=data)).images[0].locate()


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"shape_type": "circle", "points": [[1, 1], [1e7, 2]]}, "nowhere near"),
        ({"shape_type": "mask", "points": [[1, 1], [2, 2]]}, "mask is not an image"),
        ({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "!"}, "no base64"),
        ({"shape_type": "mask", "points": [[1, 1], [3, 2]], "mask": "2x2"}, "does not fit its corners"),
        ({"shape_type": "mask", "points": [[-1, 1], [0, 2]], "mask": "2x2"}, "does not fit its corners"),
        ({"shape_type": "mask", "points": [[179, 1], [180, 2]], "mask": "2x2"}, "does not fit its corners"),
    ],
)
def test_shapes_that_cannot_be_drawn_are_named(tmp_path, shape, reason):
    if shape.get("mask") == "2x2":
        shape = shape | {"mask": png_text(np.ones((2, 2), dtype=np.uint8))}
    two_things()[0].save(tmp_path / "table.png")
    (image,) = read_annotations(write(tmp_path, shape, imagePath="table.png")).images
    with pytest.raises(MaskError, match=f"'table.png', class 'a': .*{reason}"):
        image.read()


def test_a_file_that_is_not_labelmes_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json is no LabelMe file: shapes\.0\.points: Input should be"):
        read_annotations(write(tmp_path, {"points": 3}))
