import numpy as np
import pytest
import rasterio
from make_data import full_after
from make_rasters import discs, red_on_green, write_map
from rasterio.control import GroundControlPoint

from kshot.errors import ImageError, KshotError, MaskError, WriteError
from kshot.io.geotiff import BLOCK_SIZE, create_geotiff, open_geotiff, read_geotiff_mask
from kshot.io.raster_options import RasterOptions

SIZE = (40, 60)
MASK = discs(SIZE, [(20, 20)])


def read_all(path, view=RasterOptions()):  # noqa: B008  # it is frozen
    with open_geotiff(path, view) as source:
        height, width = source.size
        image, valid = source.read((0, 0, width, height))
        return np.asarray(image), valid


def test_bytes_are_read_as_they_are_and_windows_are_parts_of_the_whole(tmp_path):
    bands = red_on_green(MASK).astype(np.uint8)
    path = write_map(tmp_path / "map.tif", bands)
    whole, valid = read_all(path)
    np.testing.assert_array_equal(whole, bands.transpose(1, 2, 0))
    assert valid.all()
    with open_geotiff(path, RasterOptions()) as source:
        part, _ = source.read((10, 5, 50, 30))
    np.testing.assert_array_equal(np.asarray(part), whole[5:30, 10:50])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_levels_are_stretched_between_percentiles_of_what_has_data(tmp_path, dtype):
    """By hand: of the levels 0 to 1000 the 2nd percentile, 20, is black, the 98th, 980, is white."""
    levels = np.linspace(0, 1000, SIZE[0] * SIZE[1]).reshape(1, *SIZE).astype(dtype)
    levels[0, :2, :5] = 9999
    found, valid = read_all(write_map(tmp_path / "map.tif", levels, nodata=9999))
    assert not valid[:2, :5].any()
    assert valid.sum() == valid.size - 10
    assert not found[~valid].any()
    expected = ((levels[0].astype(float) - 20) / 960 * 255).clip(0, 255)
    assert np.abs(found[..., 0] - expected)[valid].max() < 1.5
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_bands_are_chosen(tmp_path):
    bands = np.stack([np.full(SIZE, level, np.uint8) for level in (10, 20, 30, 40)])
    path = write_map(tmp_path / "map.tif", bands, photometric="MINISBLACK")
    for wanted, shown in {None: (10, 20, 30), (4, 3, 2): (40, 30, 20), (2,): (20, 20, 20)}.items():
        assert tuple(read_all(path, RasterOptions(bands=wanted))[0][0, 0]) == shown
    with pytest.raises(ImageError, match="has 4 bands; --bands is 5,1,1"):
        read_all(path, RasterOptions(bands=(5, 1, 1)))
    two = write_map(tmp_path / "two.tif", bands[:2])
    assert tuple(read_all(two)[0][0, 0]) == (10, 10, 10)


def test_what_is_transparent_or_not_a_number_has_no_data(tmp_path):
    bands = np.full((4, *SIZE), 100, np.uint8)
    bands[3] = np.where(MASK, 0, 255)
    path = write_map(tmp_path / "alpha.tif", bands, photometric="RGB", alpha="YES")
    np.testing.assert_array_equal(read_all(path)[1], ~MASK)
    levels = np.where(MASK, np.nan, np.arange(SIZE[1]))[None].astype(np.float32)
    np.testing.assert_array_equal(read_all(write_map(tmp_path / "nan.tif", levels))[1], ~MASK)


def test_palettes_become_their_colours(tmp_path):
    path = write_map(tmp_path / "map.tif", MASK[None].astype(np.uint8), photometric="PALETTE")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (1, 2, 3, 255), 1: (200, 100, 50, 255)})
    found, _ = read_all(path)
    assert set(map(tuple, found.reshape(-1, 3))) == {(1, 2, 3), (200, 100, 50)}
    assert tuple(found[20, 20]) == (200, 100, 50)


@pytest.mark.parametrize("rows", [1, 7, BLOCK_SIZE, 600])
def test_what_is_written_in_strips_lies_where_the_source_does(tmp_path, rows):
    height = 2 * BLOCK_SIZE + 77
    values = np.random.default_rng(0).random((2, height, 9), np.float32)
    source_path = write_map(tmp_path / "source.tif", np.zeros((1, height, 9), np.uint8))
    with (
        open_geotiff(source_path, RasterOptions()) as source,
        create_geotiff(tmp_path / "out.tif", source, ["cat", "dog"], "float32", np.nan) as writer,
    ):
        for top in range(0, height, rows):
            writer.write(values[:, top : top + rows])
    with rasterio.open(source_path) as source, rasterio.open(tmp_path / "out.tif") as out:
        assert (out.crs, out.transform, out.shape) == (source.crs, source.transform, source.shape)
        assert out.descriptions == ("cat", "dog")
        assert np.isnan(out.nodata)
        assert (out.compression.name, out.block_shapes[0]) == ("deflate", (BLOCK_SIZE, BLOCK_SIZE))
        np.testing.assert_array_equal(out.read(), values)


@pytest.mark.parametrize("height", [300, 1200])  # the smaller one is written when it is closed
def test_a_full_disk_leaves_the_old_map_and_is_said_with_the_path(tmp_path, height):
    values = np.random.default_rng(0).integers(0, 256, (1, height, 200), dtype=np.uint8)
    source_path, path = write_map(tmp_path / "source.tif", np.zeros_like(values)), tmp_path / "out.tif"

    def write():
        with (
            open_geotiff(source_path, RasterOptions()) as source,
            create_geotiff(path, source, ["a"], "uint8", 0) as writer,
        ):
            writer.write(values)

    write()
    before = path.read_bytes()
    for room in (0, 3000, len(before) - 1):
        with (
            full_after(room),
            pytest.raises(WriteError, match=f"{path} cannot be written: .*Free some space"),
        ):
            write()
        assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path, source_path]


def test_ground_control_points_are_kept(tmp_path):
    points = [GroundControlPoint(r, c, 10 + c / 9, 50 - r / 7) for r, c in [(0, 0), (0, 60), (40, 0)]]
    bands = np.zeros((1, *SIZE), np.uint8)
    path = write_map(tmp_path / "map.tif", bands, crs="EPSG:4326", transform=None, gcps=points)
    with (
        open_geotiff(path, RasterOptions()) as source,
        create_geotiff(tmp_path / "o.tif", source, "a", "uint8", 255) as out,
    ):
        out.write(bands)
    with rasterio.open(path) as source, rasterio.open(tmp_path / "o.tif") as out:
        kept = [[(p.row, p.col, p.x, p.y) for p in one.gcps[0]] for one in (source, out)]
        assert kept[0] == kept[1]
        assert out.gcps[1] == source.gcps[1]


def test_masks_lie_where_their_map_does(tmp_path):
    path = write_map(tmp_path / "map.tif", red_on_green(MASK).astype(np.uint8))
    values = np.where(MASK, 3, 0)[None]
    values[0, 0, 0] = 200
    good = write_map(tmp_path / "good.tif", values.astype(np.float32), nodata=200)
    with open_geotiff(path, RasterOptions()) as source:
        np.testing.assert_array_equal(read_geotiff_mask(good, source), np.where(MASK, 3, 0))
        elsewhere = write_map(tmp_path / "elsewhere.tif", values.astype(np.uint8), left=500_001)
        with pytest.raises(MaskError, match="lies elsewhere than its image"):
            read_geotiff_mask(elsewhere, source)
        soft = write_map(tmp_path / "soft.tif", values.astype(np.float32) / 2)
        with pytest.raises(MaskError, match="no integers"):
            read_geotiff_mask(soft, source)
        with pytest.raises(MaskError, match="has 3 bands"):
            read_geotiff_mask(path, source)


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    (tmp_path / "broken.tif").write_bytes(b"II*\0nothing")
    with pytest.raises(ImageError, match=r"broken\.tif"):
        read_all(tmp_path / "broken.tif")
    complex_path = write_map(tmp_path / "complex.tif", np.zeros((1, *SIZE), np.complex64))
    with pytest.raises(ImageError, match="complex numbers"):
        read_all(complex_path)
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    with pytest.raises(KshotError, match=r"pip install 'kshot\[geo\]'"):
        read_all(complex_path)


def test_a_thing_has_one_colour_in_maps_of_the_same_sensor(tmp_path):
    """Were bands stretched by themselves, the green would be black where there is little else."""
    greens = []
    for name, place in {"support": (20, 20), "query": (20, 58)}.items():
        mask = discs(SIZE, [place])
        path = write_map(tmp_path / f"{name}.tif", red_on_green(mask, 9000).astype(np.uint16))
        greens.append(read_all(path)[0][0, 0].astype(int))
    assert np.abs(greens[0] - greens[1]).max() < 9
    assert greens[0][1] > 100 + greens[0][0]
