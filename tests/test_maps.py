"""GeoJSON and GeoPackage of GeoTIFFs, read back by the libraries that define them."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from make_data import colour_segmenter, full_after
from make_rasters import discs, red_on_green, write_map
from rasterio.control import GroundControlPoint
from rasterio.features import rasterize
from rasterio.warp import transform_geom
from test_cli import run
from test_instances import blobs, place

from kshot.annotations.writers.formats import MAP_FORMATS
from kshot.errors import KshotError, WriteError
from kshot.io.geotiff import open_geotiff
from kshot.io.raster_options import RasterOptions
from kshot.results import SegmentationResult
from kshot.segmenter import Segmenter

CRS = "EPSG:32633"


def written(tmp_path, mask, name, tolerance=0, **profile):
    """Write a mask's instances with the coordinates of a map; return the instances and the file."""
    source = write_map(tmp_path / "map.tif", mask[None].astype(np.uint8), **profile)
    result = SegmentationResult.of_one_class(mask, np.where(mask, 0.75, 0).astype(np.float32), "roof")
    instances = result.instances(tolerance=tolerance)
    path = tmp_path / MAP_FORMATS[name].file.format(name="map")
    with open_geotiff(source, RasterOptions()) as opened:
        MAP_FORMATS[name].write(path, opened, instances)
    return instances, path


def shapes_in(path):
    """Return the shapes in map coordinates, and the fields of each."""
    if path.suffix == ".geojson":
        features = json.loads(path.read_text())["features"]
        shapes = [shapely.geometry.shape(transform_geom("EPSG:4326", CRS, f["geometry"])) for f in features]
        return shapes, [feature["properties"] for feature in features]
    info, _, geometry, columns = pyogrio.raw.read(path)
    rows = [dict(zip(info["fields"], row, strict=True)) for row in zip(*columns, strict=True)]
    return list(shapely.from_wkb(geometry)), rows


@pytest.mark.parametrize("name", MAP_FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_shapes_cover_the_pixels_of_their_instances_with_holes(tmp_path, name, seed):
    instances, path = written(tmp_path, blobs(seed), name)
    shapes, rows = shapes_in(path)
    with rasterio.open(tmp_path / "map.tif") as source:
        transform, size = source.transform, source.shape
    assert len(shapes) == len(instances)
    assert all(shape.is_valid for shape in shapes)
    for one, shape, row in zip(instances, shapes, rows, strict=True):
        drawn = rasterize([shape], size, transform=transform).astype(bool)
        np.testing.assert_array_equal(drawn, place(one, size))
        assert shape.area == pytest.approx(one.area * 0.25, rel=1e-3)  # pixels of half a metre
        assert row == {"instance": one.id, "class": "roof", "area": one.area, "score": 0.75}


def test_a_geopackage_keeps_the_coordinate_system_and_geojson_is_in_degrees(tmp_path):
    _, path = written(tmp_path, discs((60, 80), [(30, 30)]), "gpkg")
    info = pyogrio.read_info(path)
    assert (info["crs"], info["geometry_type"], info["layer_name"]) == (CRS, "MultiPolygon", "instances")
    _, path = written(tmp_path, discs((60, 80), [(30, 30)]), "geojson")
    assert pyogrio.read_info(path)["crs"] == "EPSG:4326"
    left, bottom, right, top = pyogrio.read_info(path, force_total_bounds=True)["total_bounds"]
    assert 14.9 < left < right < 15.1
    assert 48 < bottom < top < 50


@pytest.mark.parametrize("name", MAP_FORMATS)
def test_maps_with_control_points_and_without_instances(tmp_path, name):
    corners = [(0, 0), (0, 80), (60, 0), (60, 80)]
    points = [GroundControlPoint(row, col, 500_000 + col, 5_400_000 - row) for row, col in corners]
    instances, path = written(
        tmp_path, discs((60, 80), [(30, 30)]), name, transform=None, gcps=points, crs=CRS
    )
    (shape,), _ = shapes_in(path)
    assert shape.centroid.x == pytest.approx(500_030.5, abs=0.1)
    assert shape.area == pytest.approx(instances[0].area, rel=1e-3)
    instances, path = written(tmp_path, np.zeros((60, 80), bool), name)
    assert shapes_in(path) == ([], [])


def test_tolerance_saves_points(tmp_path):
    mask = discs((60, 80), [(30, 40)], radius=25)
    counts = []
    for tolerance in (0, 0.5, 4):
        _, path = written(tmp_path, mask, "gpkg", tolerance)
        counts.append(len(shapely.get_coordinates(shapes_in(path)[0])))
    assert counts[0] > counts[1] > 2 * counts[2]


def test_geojson_without_a_coordinate_system_is_refused(tmp_path):
    mask = discs((60, 80), [(30, 30)])
    with pytest.raises(KshotError, match="no coordinate system"):
        written(tmp_path, mask, "geojson", crs=None)
    _, path = written(tmp_path, mask, "gpkg", crs=None)
    assert pyogrio.read_info(path)["crs"] is None


def test_a_full_disk_is_named(tmp_path):
    with full_after(3000), pytest.raises(WriteError, match=r"map\.gpkg cannot be written"):
        written(tmp_path, discs((60, 80), [(30, 30)]), "gpkg", compress="deflate")
    assert not list(tmp_path.glob("*.gpkg"))


def test_the_command_writes_maps_of_vectors(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda name, **_: colour_segmenter(tile=64))
    mask = discs((230, 170), [(40, 40), (100, 120), (200, 60)])
    write_map(tmp_path / "a.tif", red_on_green(mask).astype(np.uint8))
    write_map(tmp_path / "mask.tif", mask[None].astype(np.uint8))
    command = ["segment", "--support", "a.tif", "mask.tif", "a.tif", "--tile", 64, "--out", "out"]
    assert run(*command, "--also", "geojson,gpkg", "--instances", "tolerance=0") == 0
    with rasterio.open("out/a_mask.tif") as source:
        found, transform = source.read(1) == 1, source.transform
    shapes, rows = shapes_in(tmp_path / "out" / "a.gpkg")
    drawn = rasterize(shapes, found.shape, transform=transform).astype(bool)
    np.testing.assert_array_equal(drawn, found)
    assert all(0.5 < row["score"] <= 1 for row in rows)
    (tmp_path / "out" / "a.geojson").unlink()
    assert run(*command, "--also", "geojson,gpkg", "--instances", "tolerance=0") == 0
    assert (tmp_path / "out" / "a.geojson").exists()
    capsys.readouterr()
    for also in ("geojson", "gpkg,coco"):
        assert run(*command, "mask.png", "--also", also) == 2
