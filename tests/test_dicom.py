import numpy as np
import pydicom
import pytest
from make_rasters import write_slice

from kshot.errors import ImageError, KshotError
from kshot.io.dicom import load_dicom

LEVELS = np.arange(20, dtype=np.uint16).reshape(4, 5)


@pytest.fixture
def series(tmp_path):
    """Three slices, 2.5 mm apart, whose names are not in their order."""
    folder = tmp_path / "series"
    folder.mkdir()
    for name, height in {"b": 2.5, "a": 5.0, "c": 0.0}.items():
        window = {"WindowCenter": [40, 600], "WindowWidth": [400, 1500]}
        write_slice(folder / f"{name}.dcm", LEVELS + np.uint16(1000 * height), height=height, **window)
    return folder


def test_a_series_is_sorted_and_lies_where_its_slices_say(series):
    """A pixel's place is reckoned as DICOM's equation C.7.6.2.1-1 says, and turned from LPS to RAS."""
    image, window = load_dicom(series)
    assert window == (40 - 200, 40 + 200)
    assert image.shape == (5, 4, 3)
    assert [float(image.dataobj[0, 0, k]) for k in range(3)] == [-1024, 1476, 3976]
    np.testing.assert_allclose(image.header.get_zooms(), (0.75, 0.5, 2.5))
    column, row, number = 3, 2, 1
    left, back, head = -10 + column * 0.75, -20 + row * 0.5, number * 2.5
    np.testing.assert_allclose(image.affine @ [column, row, number, 1], [-left, -back, head, 1])
    assert float(image.dataobj[column, row, number]) == LEVELS[row, column] + 2500 - 1024
    assert image.header.get_xyzt_units()[0] == "mm"


def test_one_slice_without_a_place_is_a_volume_too(tmp_path):
    path = write_slice(tmp_path / "a.dcm", LEVELS, PhotometricInterpretation="MONOCHROME1")
    one = pydicom.dcmread(path)
    for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(one, name)
    one.ImagerPixelSpacing, one.WindowCenter, one.WindowWidth = [0.2, 0.3], -1000, 100
    one.save_as(path)
    image, window = load_dicom(path)
    assert image.shape == (5, 4, 1)
    np.testing.assert_allclose(image.header.get_zooms(), (0.3, 0.2, 2))
    np.testing.assert_array_equal(image.dataobj[..., 0], 1024.0 - LEVELS.T)  # white is small in the file
    assert window == (950, 1050)


@pytest.mark.parametrize(
    ("height", "fields", "reason"),
    [
        (9.0, {}, "one seems to be missing"),
        (5.0, {}, "lie at the same place"),
        (7.5, {"series": "1.9"}, "holds 2 DICOM series"),
        (7.5, {"PixelSpacing": [1, 1]}, "differ in size, spacing or direction"),
        (7.5, {"NumberOfFrames": 2}, "colours or several frames"),
    ],
)
def test_series_that_make_no_volume_are_said(series, height, fields, reason):
    write_slice(series / "d.dcm", LEVELS, height=height, **fields)
    with pytest.raises(ImageError, match=reason):
        load_dicom(series)


def test_broken_files_are_said(tmp_path, monkeypatch):
    path = write_slice(tmp_path / "a.dcm", LEVELS)
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[:-9])
    (tmp_path / "no.dcm").write_bytes(b"nothing")
    for name in ("cut.dcm", "no.dcm"):
        with pytest.raises(ImageError, match=f"{name}' cannot be read as DICOM"):
            load_dicom(tmp_path / name)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(KshotError, match=r"pip install 'kshot\[medical\]'"):
        load_dicom(path)
