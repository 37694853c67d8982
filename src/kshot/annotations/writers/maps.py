"""Write the instances of a GeoTIFF as polygons with map coordinates: GeoJSON and GeoPackage."""

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kshot.annotations.writers.base import MapFormat
from kshot.errors import KshotError, reason_of
from kshot.io.extras import import_extra
from kshot.io.files import atomic_write, write_error, write_text
from kshot.results import Instance

if TYPE_CHECKING:
    from kshot.io.geotiff import GeoTiff

WGS84 = "EPSG:4326"
"""Longitude and latitude, which GeoJSON's standard (RFC 7946) prescribes."""

DECIMALS = 8
"""Of degrees: about a millimetre."""


def _write_geojson(path: Path, source: "GeoTiff", instances: Sequence[Instance]) -> None:
    """Write a collection of features in longitude and latitude. Raises KshotError without coordinates."""
    crs, _ = source.coordinates
    if crs is None:
        raise KshotError(
            "GeoJSON needs longitude and latitude, but the map has no coordinate system. Choose gpkg, which "
            "keeps the map's own coordinates."
        )
    warp = import_extra("rasterio.warp", "GeoJSON needs rasterio", "geo").transform_geom
    features = [
        {
            "type": "Feature",
            "id": one.id,
            "properties": {
                "instance": one.id,
                "class": one.class_name,
                "area": one.area,
                "score": round(one.score, 4),
            },
            "geometry": warp(crs, WGS84, shape.__geo_interface__, precision=DECIMALS),
        }
        for one, shape in _shapes(source, instances)
    ]
    write_text(json.dumps({"type": "FeatureCollection", "features": features}), path)


def _write_geopackage(path: Path, source: "GeoTiff", instances: Sequence[Instance]) -> None:
    """Write a layer `instances` in the map's own coordinate system."""
    shapely = import_extra("shapely", "Maps of vectors need shapely", "geo")
    pyogrio = import_extra("pyogrio", "GeoPackage needs pyogrio", "geo")
    crs, _ = source.coordinates
    shapes = [shapely.geometry.MultiPolygon(_polygons(shape)) for _, shape in _shapes(source, instances)]
    columns = {
        "instance": np.array([one.id for one in instances], np.int32),  # `id` is the layer's own column
        "class": np.array([one.class_name for one in instances], object),
        "area": np.array([one.area for one in instances], np.int64),
        "score": np.array([round(one.score, 4) for one in instances], np.float64),
    }
    with atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")  # a map without a system stays one
        try:
            pyogrio.raw.write(
                temporary,
                geometry=np.array(shapely.to_wkb(shapes), dtype=object),
                field_data=list(columns.values()),
                fields=list(columns),
                layer="instances",
                driver="GPKG",
                geometry_type="MultiPolygon",
                crs=None if crs is None else crs.to_wkt(),
            )
            count = pyogrio.read_info(temporary)["features"]  # GDAL does not always report a full disk
        except RuntimeError as problem:  # the base of all errors of pyogrio
            raise write_error(path, reason_of(problem)) from problem
        if count != len(shapes):
            raise write_error(path, "GDAL has left something out")


def _shapes(source: "GeoTiff", instances: Sequence[Instance]) -> Iterator[tuple[Instance, Any]]:
    """Yield each instance with its shape in map coordinates, along the edges of its pixels."""
    features = import_extra("rasterio.features", "Maps of vectors need rasterio", "geo")
    shapely = import_extra("shapely.geometry", "Maps of vectors need shapely", "geo")
    windows = import_extra("rasterio.windows", "Maps of vectors need rasterio", "geo")
    _, transform = source.coordinates
    pixel = abs(transform.determinant) ** 0.5
    for one in instances:
        left, top, right, bottom = one.box
        here = windows.transform(windows.Window(left, top, right - left, bottom - top), transform)
        # With 4 neighbours, since a polygon must not touch itself; parts that meet at corners are several.
        found = features.shapes(one.mask.astype("uint8"), mask=one.mask, connectivity=4, transform=here)
        parts = [shapely.shape(geometry) for geometry, _ in found]
        whole = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
        yield one, whole.simplify(one.tolerance * pixel) if one.tolerance else whole


def _polygons(shape: Any) -> list[Any]:
    return list(getattr(shape, "geoms", [shape]))


GEOJSON = MapFormat("{name}.geojson", _write_geojson, ("skimage", "rasterio", "shapely"))

GEOPACKAGE = MapFormat("{name}.gpkg", _write_geopackage, ("skimage", "rasterio", "shapely", "pyogrio"))
