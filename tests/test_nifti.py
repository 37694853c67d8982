import nibabel
import numpy as np
import pytest
from make_rasters import OBLIQUE, ball, write_nifti

from kshot.errors import ImageError, KshotError, MaskError
from kshot.io.nifti import (
    from_display,
    load_nifti,
    make_volume,
    read_volume_mask,
    to_display,
    write_volume,
)
from kshot.io.raster_options import WindowLevel

VOXELS = np.random.default_rng(0).integers(0, 1000, (6, 5, 4), dtype=np.int16)


def test_axes_run_to_the_right_the_front_and_the_head(tmp_path):
    """Each voxel is where nibabel's own affine says."""
    image = load_nifti(write_nifti(tmp_path / "a.nii.gz", VOXELS))
    volume = make_volume(image, None, None)
    canonical = nibabel.as_closest_canonical(image)
    np.testing.assert_array_equal(volume.voxels, canonical.get_fdata())
    assert (np.diag(canonical.affine)[:3] > 0).all()
    assert volume.axis == 1  # the file's last axis runs to the front
    assert volume.num_slices == 4
    assert {p: make_volume(image, p, None).axis for p in ("sagittal", "coronal", "axial")} == {
        "sagittal": 0,
        "coronal": 1,
        "axial": 2,
    }


def test_slices_are_seen_as_radiologists_do(tmp_path):
    """The front is above in an axial slice, the head in the others; the patient's right is at the left."""
    voxels = np.zeros((6, 5, 4), np.float32)
    voxels[:, :, 3] = 50  # the head
    voxels[:, 4, :] = 100  # the front
    voxels[0, :, :] = 200  # the left, for the first axis runs to the right
    image = load_nifti(write_nifti(tmp_path / "a.nii", voxels, np.eye(4)))
    axial, coronal, sagittal = (
        np.asarray(make_volume(image, plane, WindowLevel(0, 255)).slice_image(2))[..., 0]
        for plane in ("axial", "coronal", "sagittal")
    )
    assert axial.shape == (5, 6)
    assert (axial[:, -1] == 200).all()
    assert (axial[0, :-1] == 100).all()
    assert coronal.shape == (4, 6)
    assert (coronal[:, -1] == 200).all()
    assert (coronal[0, :-1] == 50).all()
    assert sagittal.shape == (4, 5)
    assert (sagittal[:, 0] == 100).all()
    assert (sagittal[0, 1:] == 50).all()
    np.testing.assert_array_equal(from_display(to_display(voxels[1])), voxels[1])


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 1), (6, 5)])
def test_what_is_written_lies_on_the_files_voxels(tmp_path, shape):
    image = load_nifti(write_nifti(tmp_path / "a.nii.gz", VOXELS.ravel()[: np.prod(shape)].reshape(shape)))
    volume = make_volume(image, None, None)
    contents = set()
    for _ in range(2):
        write_volume((volume.voxels > 500).astype(np.uint8), volume, tmp_path / "out.nii.gz")
        contents.add((tmp_path / "out.nii.gz").read_bytes())
    assert len(contents) == 1
    found, source = nibabel.load(tmp_path / "out.nii.gz"), nibabel.load(tmp_path / "a.nii.gz")
    assert found.shape == source.shape
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(found.affine, source.affine)
    np.testing.assert_array_equal(found.header.get_zooms(), source.header.get_zooms())
    assert found.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_array_equal(found.get_fdata(), source.get_fdata() > 500)


def test_classes_become_a_fourth_axis(tmp_path):
    volume = make_volume(load_nifti(write_nifti(tmp_path / "a.nii.gz", VOXELS)), None, None)
    both = np.stack([volume.voxels, 2 * volume.voxels], axis=-1)
    write_volume(both, volume, tmp_path / "out.nii.gz")
    found = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(found.dataobj[..., 1], 2 * VOXELS)


def test_levels_are_the_files_own_if_it_says(tmp_path):
    image = load_nifti(write_nifti(tmp_path / "a.nii.gz", np.arange(101.0).reshape(101, 1, 1)))
    assert make_volume(image, None, None).window == (2, 98)
    assert make_volume(image, None, WindowLevel(5, 6)).window == (5, 6)
    image.header["cal_min"], image.header["cal_max"] = 10, 60
    assert make_volume(image, None, None).window == (10, 60)


def test_masks_are_read_wherever_their_axes_run(tmp_path):
    thing = ball((6, 5, 4), (2, 2, 1), 2)
    image = load_nifti(write_nifti(tmp_path / "a.nii.gz", VOXELS))
    volume = make_volume(image, None, None)
    as_floats = write_nifti(tmp_path / "mask.nii.gz", 4 * thing.astype(np.float32))
    turned = nibabel.as_closest_canonical(nibabel.load(as_floats))
    nibabel.save(turned, tmp_path / "turned.nii.gz")
    for name in ("mask", "turned"):
        found = read_volume_mask(tmp_path / f"{name}.nii.gz", volume)
        np.testing.assert_array_equal(found, turned.get_fdata())
    elsewhere = write_nifti(tmp_path / "elsewhere.nii.gz", thing.astype(np.uint8), OBLIQUE * 1.1)
    with pytest.raises(MaskError, match="lies elsewhere"):
        read_volume_mask(elsewhere, volume)
    smaller = write_nifti(tmp_path / "smaller.nii.gz", thing[:5].astype(np.uint8))
    with pytest.raises(MaskError, match=r"has \(5, 4, 5\) voxels, its volume \(5, 4, 6\)"):
        read_volume_mask(smaller, volume)


def test_what_is_no_volume_is_said(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match="three axes"):
        load_nifti(write_nifti(tmp_path / "series.nii.gz", np.zeros((3, 3, 3, 2), np.int16)))
    whole = write_nifti(tmp_path / "a.nii.gz", VOXELS).read_bytes()
    for name, content in {"cut.nii.gz": whole[:-40], "no.nii.gz": b"nothing", "cut.nii": whole[:100]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=f"{name}' cannot be read as NIfTI"):
            load_nifti(tmp_path / name)
    with pytest.raises(ImageError, match="no file"):
        load_nifti(tmp_path / "gone.nii")
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(KshotError, match=r"pip install 'kshot\[medical\]'"):
        load_nifti(tmp_path / "a.nii.gz")
