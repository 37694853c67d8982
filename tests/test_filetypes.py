import numpy as np
import pytest
from make_data import scene
from make_rasters import write_map, write_nifti, write_slice
from PIL import Image

from kshot.errors import KshotError
from kshot.io.extras import import_extra
from kshot.io.filetypes import file_type

LEVELS = np.zeros((4, 5), np.uint16)
BANDS = np.zeros((1, 8, 8), np.uint8)


def test_images_geotiffs_and_volumes_are_distinguished(tmp_path):
    assert file_type(write_map(tmp_path / "map.tif", BANDS)) == "geotiff"
    assert file_type(write_map(tmp_path / "big.tif", BANDS, BIGTIFF="YES")) == "geotiff"
    Image.new("L", (8, 8)).save(tmp_path / "plain.tif")
    scene()[0].save(tmp_path / "photo.jpg")
    (tmp_path / "broken.tif").write_bytes(b"II")
    for name in ("plain.tif", "photo.jpg", "broken.tif", "gone.tif", "gone"):
        assert file_type(tmp_path / name) == "image"
    write_nifti(tmp_path / "brain.nii.gz", LEVELS[..., None])
    for path in (tmp_path / "brain.nii.gz", write_slice(tmp_path / "IM0001", LEVELS), tmp_path):
        assert file_type(path) == "volume"


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_tiff_without_coordinates_is_an_image(tmp_path):
    path = write_map(tmp_path / "map.tif", BANDS, crs=None, transform=None)
    assert file_type(path) == "image"


def test_a_missing_library_is_named_with_its_extra():
    with pytest.raises(KshotError, match=r"^GeoTIFFs need nothing_like_it: pip install 'kshot\[geo\]'\.$"):
        import_extra("nothing_like_it", "GeoTIFFs need nothing_like_it", "geo")
