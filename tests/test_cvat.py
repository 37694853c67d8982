import numpy as np
import pytest
from make_annotations import cvat_text
from make_data import two_things

from kshot.annotations.reader import read_annotations
from kshot.errors import DataError, MaskError

PLAIN = '<annotations><image name="table.png" width="180" height="90">{}</image></annotations>'


def draw(tmp_path, shape):
    two_things()[0].save(tmp_path / "table.png")
    (tmp_path / "annotations.xml").write_text(PLAIN.format(shape))
    return read_annotations(tmp_path / "annotations.xml").images[0].read()[1]


def test_polygons_and_boxes_are_drawn_and_turned(tmp_path):
    shapes = '<polygon label="a" points="10.00,20.00;30.00,20.00;30.00,40.00;10.00,40.00"/>'
    shapes += '<box label="b" xtl="10.00" ytl="20.00" xbr="30.00" ybr="40.00"/>'
    shapes += '<box label="c" xtl="100.00" ytl="30.00" xbr="140.00" ybr="50.00" rotation="90.00"/>'
    shapes += '<ellipse label="d" cx="120.00" cy="40.00" rx="30.00" ry="5.00" rotation="45.00"/>'
    masks = draw(tmp_path, shapes)
    wanted = np.zeros((90, 180), dtype=bool)
    wanted[20:40, 10:30] = True
    np.testing.assert_array_equal(masks["a"], wanted)
    np.testing.assert_array_equal(masks["b"], wanted)
    ys, xs = np.nonzero(masks["c"])
    np.testing.assert_allclose((xs.min(), xs.max() + 1, ys.min(), ys.max() + 1), (110, 130, 20, 60), atol=1)
    ys, xs = np.nonzero(masks["d"])  # clockwise, as one sees it: from the upper left to the lower right
    assert np.corrcoef(xs, ys)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<polygon label="a" points="1,2;3"/>', "must be x,y;x,y"),
        ('<polygon label="a" points="1,2;3,nan;5,6"/>', "has 'nan' where a number must be"),
        ('<box label="a" xtl="1" ytl="2" xbr="3"/>', "has '' where a number must be"),
        ('<ellipse label="a" cx="1" cy="2" rx="1e9" ry="3"/>', "nowhere near"),
        ('<mask label="a" rle="1, 2" left="0" top="0" width="2" height="2"/>', "do not add up to the 4"),
        ('<mask label="a" rle="1" left="179" top="0" width="2" height="2"/>', "leaves its image"),
        ('<mask label="a" rle="0,9" left="0" top="0" width="1e6" height="1e6"/>', "leaves its image"),
    ],
)
def test_shapes_that_cannot_be_drawn_are_named(tmp_path, shape, reason):
    with pytest.raises(MaskError, match=f"'table.png', class 'a': .*{reason}"):
        draw(tmp_path, shape)


def test_entities_and_depths_are_no_bombs(tmp_path):
    path = tmp_path / "annotations.xml"
    laughs = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><annotations>&l9;</annotations>'
    for text in (bomb, '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'):
        path.write_text(text)
        with pytest.raises(DataError, match="declares a document type or entities"):
            read_annotations(path)
    path.write_text(bomb, encoding="utf-16")
    with pytest.raises(DataError, match=r"no JSON file"):
        read_annotations(path)
    path.write_text("<annotations>" * 200_000 + "</annotations>" * 200_000)
    with pytest.raises(DataError, match="annotates nothing"):
        read_annotations(path)


def test_files_of_other_kinds_are_named(tmp_path):
    path = tmp_path / "annotations.xml"
    for text in ("<annotations><track/></annotations>", "<annotation/>"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"is no 'CVAT for images 1\.1' file"):
            read_annotations(path)
    for size in ("", "0", "-5", "9999999", "²"):
        path.write_text(cvat_text().replace('width="180"', f'width="{size}"'))
        with pytest.raises(DataError, match="an image whose width is"):
            read_annotations(path)
