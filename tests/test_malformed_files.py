"""Sound files with odd metadata are read; broken ones of every format are refused without a traceback."""

import struct
from io import BytesIO

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from make_rasters import write_nifti, write_slice
from PIL import Image, PngImagePlugin
from test_image_files import chunk

from benchmarks.robustness.fuzzing import READERS, Reader, fuzz, with_png_checksums
from kshot.errors import ImageError
from kshot.io.dicom import load_dicom
from kshot.io.image_formats import left_out_line
from kshot.io.images import list_images, read_image, read_image_bytes
from kshot.io.nifti import load_nifti, make_volume

RED = Image.new("RGB", (6, 4), "red")


def encoded(kind, image=RED, **options):
    data = BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def with_chunk(kind, content):
    """Return a PNG with one more chunk, behind its header."""
    png = encoded("PNG")
    return png[:33] + chunk(kind, content) + png[33:]


def with_text():
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "x" * 3_000_000, zip=True)
    return text


SOUND = {
    "PNG, large profile": encoded("PNG", icc_profile=bytes(3_000_000)),
    "PNG, large text": encoded("PNG", pnginfo=with_text()),
    "PNG, malformed profile": with_chunk(b"iCCP", b"name\0\0no zlib"),
    "PNG, malformed text": with_chunk(b"zTXt", b"name\0\0no zlib"),
    "PNG, short resolution": with_chunk(b"pHYs", b"1"),
    "PNG, malformed EXIF": encoded("PNG", exif=b"II*\0\x08\0\0\0\xff\xff"),
    "JPEG, large profile": encoded("JPEG", icc_profile=bytes(3_000_000)),
    "JPEG, malformed EXIF": encoded("JPEG", exif=b"Exif\0\0garbage"),
    "WebP, malformed EXIF": encoded("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12"),
}


@pytest.mark.parametrize("content", SOUND.values(), ids=SOUND)
@pytest.mark.filterwarnings("default:.*EXIF:UserWarning")
def test_sound_images_are_read_whatever_their_metadata(content):
    assert np.abs(np.asarray(read_image_bytes(content, "a")).astype(int) - np.array([255, 0, 0])).max() < 5


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.binary(max_size=60))
@pytest.mark.filterwarnings("default::UserWarning")
def test_any_exif_data_are_read_or_passed_over(kind, exif):
    found = read_image_bytes(encoded(kind, exif=b"Exif\0\0II*\0\x08\0\0\0" + exif), "a")
    assert sorted(found.size) == [4, 6]


@pytest.mark.parametrize("suffix", ["heic", "avif", "jfif", "jp2"])
def test_other_formats_are_found_and_read(tmp_path, suffix):
    if suffix == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = Image.new("RGB", (64, 48), "red")
    image.save(tmp_path / f"a.{suffix}", {"jfif": "JPEG", "heic": "HEIF"}.get(suffix))
    ((path, _),) = list_images([tmp_path])
    assert read_image(path).size == (64, 48)


def test_heic_without_its_library_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    RED.save(tmp_path / "b.png")
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    monkeypatch.setattr("kshot.io.image_formats.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"a\.heic' is a HEIC image: pip install 'kshot\[heif\]'"):
        read_image(tmp_path / "a.heic")
    left_out = []
    assert len(list_images([tmp_path], None, left_out)) == 1
    assert left_out_line(left_out) == "left out: 1 file (.heic: pip install 'kshot[heif]')"


def test_what_is_passed_over_is_reported(tmp_path, caplog):
    RED.save(tmp_path / "a.png")
    (tmp_path / "b.cr2").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    left_out = []
    assert len(list_images([tmp_path], None, left_out)) == 1
    assert [one.kind for one in left_out] == [".cr2"]  # links are reported by themselves
    list_images([tmp_path])
    assert "left out: 1 file" in caplog.text
    assert "broken.jpg" in caplog.text


@pytest.mark.parametrize(
    ("kind", "nodata"), [("float32", -9999), ("float32", -3.4028234663852886e38), ("uint16", 0)]
)
def test_a_nodata_value_does_not_flatten_an_image(tmp_path, kind, nodata):
    levels = (1000 + np.arange(2000).reshape(40, 50)).astype(kind)
    levels[:10] = nodata
    tifffile.imwrite(tmp_path / "a.tif", levels, extratags=[(42113, "s", 0, str(nodata), True)])
    grey = np.asarray(read_image(tmp_path / "a.tif"))[..., 0]
    assert len(np.unique(grey[10:])) > 200
    assert not grey[:10].any()


DICOM = {
    "empty": ({"WindowCenter": "", "WindowWidth": "", "RescaleSlope": "", "RescaleIntercept": ""}, None, 0),
    "two windows": ({"WindowCenter": [40, 600], "WindowWidth": [400, 10]}, (-160, 240), -1024),
    "first window empty": ({"WindowCenter": [40, 600], "WindowWidth": [0, 100]}, (550, 650), -1024),
    "no width": ({"WindowCenter": 40, "WindowWidth": 0}, None, -1024),
    "slope 0": ({"RescaleSlope": 0}, None, -1024),
    "no spacing": ({"PixelSpacing": "", "SliceThickness": "", "ImagePositionPatient": ""}, None, -1024),
    "no directions": ({"ImageOrientationPatient": [0] * 6, "PixelSpacing": [0, 0]}, None, -1024),
}


@pytest.mark.parametrize(("fields", "window", "lowest"), DICOM.values(), ids=DICOM)
def test_dicom_fields_may_be_empty(tmp_path, fields, window, lowest):
    levels = np.arange(20, dtype=np.uint16).reshape(4, 5)
    image, found = load_dicom(write_slice(tmp_path / "a.dcm", levels, **fields))
    assert found == window
    np.testing.assert_array_equal(image.get_fdata()[..., 0], levels.T.astype(float) + lowest)
    assert np.linalg.det(image.affine) != 0


ZERO = (280, "12f", [0] * 12)
NIFTI = {
    "sform of zeros": ([ZERO, (252, "2h", [0, 1])], (0.7, 0.81, 3.0), "spacing"),
    "sform of NaN": ([(280, "12f", [np.nan] * 12), (252, "2h", [0, 2])], (0.7, 0.81, 3.0), "spacing"),
    "sform of zeros, qform": ([ZERO, (252, "2h", [1, 1])], (0.7, 0.81, 3.0), "qform"),
    "broken qform": ([(256, "3f", [9, 9, 9]), (252, "2h", [1, 0])], (0.7, 0.81, 3.0), "spacing"),
    "both broken": ([(256, "3f", [9, 9, 9]), ZERO, (252, "2h", [1, 1])], (0.7, 0.81, 3.0), "spacing"),
    "no spacing": ([(80, "3f", [0, 0, 0]), ZERO, (252, "2h", [0, 1])], (1, 1, 1), "spacing"),
}


@pytest.mark.parametrize(("changes", "spacing", "used"), NIFTI.values(), ids=NIFTI)
def test_a_broken_nifti_affine_gives_way_to_the_next(tmp_path, changes, spacing, used, caplog):
    voxels = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    path = write_nifti(tmp_path / "a.nii", voxels)
    raw = bytearray(path.read_bytes())
    for offset, layout, values in changes:
        struct.pack_into(f"<{layout}", raw, offset, *values)
    path.write_bytes(raw)
    image = load_nifti(path)
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(image.affine), spacing, atol=0.02)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), voxels)
    assert f"{used} is used" in caplog.text
    make_volume(image, None, None).slice_image(0)


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_malformed_files_give_no_traceback(tmp_path, reader, monkeypatch):
    monkeypatch.setenv("KSHOT_MAX_PIXELS", "1000000")
    counts, failures = fuzz(reader, tmp_path, max_files=20)
    assert failures == []
    assert counts["refused"]


def test_the_fuzzer_notices_other_errors(tmp_path):
    def write(folder):
        (folder / "a.txt").write_text("sound")
        return [folder / "a.txt"]

    def read(path):
        raise ZeroDivisionError

    _, failures = fuzz(Reader("broken", write, read), tmp_path, max_files=3)
    assert len(failures) == 3
    assert with_png_checksums(encoded("PNG")) == encoded("PNG")
