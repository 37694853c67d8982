import numpy as np
import pytest
from make_data import scene
from make_rasters import write_map, write_nifti, write_slice
from PIL import Image

from kshot.io.filetypes import kind_of

LEVELS = np.zeros((4, 5), np.uint16)
BANDS = np.zeros((1, 8, 8), np.uint8)


def test_pictures_maps_and_scans_are_told_apart(tmp_path):
    assert kind_of(write_map(tmp_path / "map.tif", BANDS)) == "map"
    assert kind_of(write_map(tmp_path / "big.tif", BANDS, BIGTIFF="YES")) == "map"
    Image.new("L", (8, 8)).save(tmp_path / "plain.tif")
    scene()[0].save(tmp_path / "photo.jpg")
    (tmp_path / "broken.tif").write_bytes(b"II")
    for name in ("plain.tif", "photo.jpg", "broken.tif", "gone.tif", "gone"):
        assert kind_of(tmp_path / name) == "picture"
    write_nifti(tmp_path / "brain.nii.gz", LEVELS[..., None])
    for path in (tmp_path / "brain.nii.gz", write_slice(tmp_path / "IM0001", LEVELS), tmp_path):
        assert kind_of(path) == "scan"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_tiff_without_coordinates_is_a_picture(tmp_path):
    path = write_map(tmp_path / "map.tif", BANDS, crs=None, transform=None)
    assert kind_of(path) == "picture"
