import numpy as np
import pytest
from make_data import scene
from make_rasters import ball, discs, red_on_green, write_map, write_nifti, write_slice
from PIL import Image

from kshot.errors import MaskError
from kshot.io.overlays import mask_image
from kshot.io.raster_options import RasterOptions
from kshot.predict.raster_supports import choose_slices, read_geotiff_supports, read_volume_supports

SIZE = (60, 200)
ONE, OTHER = discs(SIZE, [(20, 30)]), discs(SIZE, [(30, 150)])


def test_a_geotiff_gives_a_window_around_each_class(tmp_path):
    bands = red_on_green(ONE | OTHER).astype(np.uint8)
    image = write_map(tmp_path / "map.tif", bands)
    labels = (ONE + 2 * OTHER).astype(np.uint8)
    mask = write_map(tmp_path / "mask.tif", labels[None])
    Image.fromarray(labels).save(tmp_path / "mask.png")
    for given in (mask, tmp_path / "mask.png"):
        found = read_geotiff_supports(image, given, {"one": 1, "other": 2}, RasterOptions(tile=40))
        assert [list(masks) for _, masks in found] == [["one"], ["other"]]
        for (picture, masks), whole in zip(found, (ONE, OTHER), strict=True):
            (seen,) = masks.values()
            assert seen.shape == (picture.height, picture.width) == (40, 40)
            assert seen.sum() == whole.sum()
            red = np.asarray(picture)[..., 0] > 100
            np.testing.assert_array_equal(red, seen)
    with pytest.raises(MaskError, match=r"mask\.tif.*2 object values"):
        read_geotiff_supports(image, mask, {"one": None}, RasterOptions())


def test_a_scaled_down_geotiff_gives_scaled_down_windows(tmp_path):
    """As large as in a query, whose windows are then ten times as wide and seen in as many pixels."""
    disc = np.kron(ONE, np.ones((10, 10))).astype(bool)
    image = write_map(tmp_path / "map.tif", red_on_green(disc).astype(np.uint8))
    mask = write_map(tmp_path / "mask.tif", disc.astype(np.uint8)[None])
    ((picture, masks),) = read_geotiff_supports(
        image, mask, {"one": None}, RasterOptions(tile=40, long_side=200)
    )
    assert masks["one"].shape == (picture.height, picture.width) == (40, 40)
    assert masks["one"].sum() == pytest.approx(ONE.sum(), rel=0.05)
    assert ((np.asarray(picture)[..., 0] > 100) == masks["one"]).mean() > 0.97
    ((near, _),) = read_geotiff_supports(image, mask, {"one": None}, RasterOptions(tile=40, long_side=4000))
    assert near.size == (40, 40)  # maps are not enlarged


def test_slices_lie_apart_and_show_much():
    """By hand: of 11 slices that show enough the parts are 3, 2, 2, 2, 2 slices long."""
    areas = np.array([0, 1, 10, 20, 15, 30, 40, 50, 45, 35, 25, 12, 11, 0])
    assert choose_slices(areas) == [3, 6, 7, 9, 11]
    assert choose_slices(np.array([0, 3, 0, 9])) == [1, 3]
    assert choose_slices(np.array([0, 0, 1])) == [2]


def test_a_volume_gives_slices_of_its_object(tmp_path, caplog):
    caplog.set_level("INFO", "kshot")
    thing = ball()
    image = write_nifti(tmp_path / "scan.nii.gz", (100 + 800 * thing).astype(np.int16))
    mask = write_nifti(tmp_path / "mask.nii.gz", 2 * thing.astype(np.uint8))
    found = read_volume_supports(image, mask, {"lump": None}, RasterOptions())
    assert len(found) == 5
    for picture, masks in found:
        np.testing.assert_array_equal(np.asarray(picture)[..., 0] > 128, masks["lump"])
        assert masks["lump"].sum() > 9
    assert "slices " in caplog.text
    assert "of 20 are support images of 'lump'" in caplog.text
    with pytest.raises(MaskError, match=r"mask\.nii\.gz.*no class has"):
        read_volume_supports(image, mask, {"lump": 1}, RasterOptions())


def test_a_radiograph_takes_an_image_as_its_mask(tmp_path):
    picture, mask = scene()
    image = write_slice(tmp_path / "a.dcm", np.asarray(picture.convert("RGB"))[..., 0].astype(np.uint16))
    mask_image(mask).save(tmp_path / "mask.png")
    ((seen, masks),) = read_volume_supports(image, tmp_path / "mask.png", {"disc": None}, RasterOptions())
    np.testing.assert_array_equal(masks["disc"], mask)
    np.testing.assert_array_equal(np.asarray(seen)[..., 0] > 200, mask)
    volume = write_nifti(tmp_path / "scan.nii.gz", ball().astype(np.uint8))
    with pytest.raises(MaskError, match="save it as NIfTI"):
        read_volume_supports(volume, tmp_path / "mask.png", {"disc": None}, RasterOptions())
