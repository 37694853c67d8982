import nibabel
import numpy as np
import pytest
from make_data import colour_segmenter, iou
from make_rasters import OBLIQUE, ball, write_nifti, write_slice
from PIL import Image
from test_cli import run

from kshot.segmenter import Segmenter

THING = ball(radius=6, centre=(12, 14, 11))


@pytest.fixture(autouse=True)
def brightness(monkeypatch):
    """Take the model that finds the support's grey, whatever the command asks for."""
    monkeypatch.setattr(
        Segmenter, "from_pretrained", lambda name, *, tile=None, **_: colour_segmenter(tile=tile)
    )


@pytest.fixture
def support(tmp_path):
    """The options of a labelled scan, whose object is bright."""
    write_nifti(tmp_path / "a.nii.gz", (100 + 800 * ball()).astype(np.int16))
    write_nifti(tmp_path / "a_mask.nii.gz", ball().astype(np.uint8))
    return ["--support", tmp_path / "a.nii.gz", tmp_path / "a_mask.nii.gz"]


@pytest.mark.parametrize("plane", [None, "axial", "sagittal"])
def test_a_volume_becomes_a_volume_of_the_same_voxels(tmp_path, support, capsys, plane):
    write_nifti(tmp_path / "brain.nii.gz", (100 + 800 * THING).astype(np.float32))
    options = ["--out", tmp_path / "out", "--also", "probability", *(["--plane", plane] if plane else [])]
    assert run("segment", *support, tmp_path / "brain.nii.gz", *options) == 0
    source = nibabel.load(tmp_path / "brain.nii.gz")
    mask, probability = (
        nibabel.load(tmp_path / "out" / f"brain_{kind}.nii.gz") for kind in ("mask", "probability")
    )
    for one in (mask, probability):
        np.testing.assert_array_equal(one.affine, source.affine)
        np.testing.assert_array_equal(one.header.get_zooms(), source.header.get_zooms())
    found = np.asarray(mask.dataobj)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 1}
    assert iou(found == 1, THING) > 0.8
    np.testing.assert_array_equal(probability.get_fdata() > 0.7, found == 1)
    assert f"{100 * found.mean():.1f} % object" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "brain_overlay.png") as overlay:
        assert overlay.width > 300


def test_a_series_and_a_radiograph_become_volumes(tmp_path, support, capsys):
    scans = tmp_path / "scans"
    for name in ("ct", "xray"):
        (scans / name).mkdir(parents=True)
    levels = (1100 + 800 * THING).astype(np.uint16)
    for number in range(8, 15):
        write_slice(scans / "ct" / f"{number}", levels[:, :, number].T, height=2 * number, series="1")
    write_slice(scans / "xray" / "chest.dcm", levels[:, :, 11].T, series="2")
    assert run("segment", *support, scans, "--out", tmp_path / "out") == 0
    ct, chest = (nibabel.load(tmp_path / "out" / f"{name}_mask.nii.gz") for name in ("ct", "xray/chest"))
    assert iou(np.asarray(ct.dataobj) == 1, THING[:, :, 8:15]) > 0.8
    assert iou(np.asarray(chest.dataobj)[..., 0] == 1, THING[:, :, 11]) > 0.8
    np.testing.assert_allclose(ct.header.get_zooms(), (0.75, 0.5, 2))
    np.testing.assert_allclose(ct.affine @ [0, 0, 0, 1], [10, 20, 16, 1])
    (scans / "ct" / "14").unlink()
    assert run("segment", *support, scans, "--out", tmp_path / "out") == 0
    assert "1 of 2 images were already done" in capsys.readouterr().out  # a slice of the other is gone


def test_classes_become_labels(tmp_path, support):
    labels = np.where(ball(), 5, 0).astype(np.uint8)
    labels[:, :, 17:] = 6
    mask = write_nifti(tmp_path / "labels.nii.gz", labels)
    options = ["--classes", "dark=6,lump=5", "--also", "probability", "--out", tmp_path / "out"]
    assert run("segment", "--support", support[1], mask, support[1], *options) == 0
    found = np.asarray(nibabel.load(tmp_path / "out" / "a_labels.nii.gz").dataobj)
    assert iou(found == 5, ball()) > 0.8
    assert iou(found == 6, ~ball()) > 0.8
    probability = nibabel.load(tmp_path / "out" / "a_probability.nii.gz")
    assert probability.shape == (*found.shape, 2)
    np.testing.assert_allclose(probability.affine, OBLIQUE, atol=1e-6)
