"""Read GeoTIFFs window by window, and write results with the same coordinates."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import ImageError, MaskError, reason_of
from kshot.io.extras import import_extra
from kshot.io.files import atomic_write, write_error
from kshot.io.raster_options import RasterOptions, WindowLevel, to_integers

CACHE_BYTES = 64 * 2**20
"""Memory for GDAL's block cache; its default grows with the machine."""

BLOCK_SIZE = 512
"""Side in pixels of the blocks of written files."""

OVERVIEW_SIZE = 1000
"""Pixels a side, at most, of the overview and of the sample from which the window is computed."""


@dataclass(frozen=True, eq=False)
class GeoTiff:
    """An open GeoTIFF, read as RGB.

    bands: one or three. window: of all bands together, so that an object has the same colour in support and
    query; None if the bands have 8 bits. palette: (256, 3); None if there is none.
    """

    dataset: Any
    bands: tuple[int, ...]
    window: WindowLevel | None
    palette: NDArray[np.uint8] | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.dataset.height, self.dataset.width

    @property
    def coordinates(self) -> tuple[Any, Any]:
        """The coordinate system, or None, and the affine from (column, row) to it."""
        points, crs = self.dataset.gcps
        if points:
            return crs, rasterio().transform.from_gcps(points)
        return self.dataset.crs, self.dataset.transform

    def read(self, box: tuple[int, int, int, int]) -> tuple[Image.Image, NDArray[np.bool_]]:
        """Return the image of a box (left, top, right, bottom), and where it has data, (height, width).

        Pixels without data are black.
        """
        left, top, right, bottom = box
        values, valid = _read(self.dataset, self.bands, window=((top, bottom), (left, right)))
        return self._to_image(values, valid), valid

    def overview(self, step: int) -> Image.Image:
        """Return every `step`-th pixel of each axis."""
        return self._to_image(*_subsample(self.dataset, self.bands, step))

    def _to_image(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> Image.Image:
        if self.window is not None:
            values = self.window.to_grey(values)
        values[:, ~valid] = 0
        if self.palette is not None:
            values = self.palette[values[0]].transpose(2, 0, 1) * valid
        rgb = np.broadcast_to(values, (3, *valid.shape)).transpose(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(rgb, np.uint8))


@contextmanager
def open_geotiff(path: Path, options: RasterOptions) -> Iterator[GeoTiff]:
    """Open a GeoTIFF. Raises ImageError if it cannot be read, KshotError if rasterio is missing."""
    with _open(path, ImageError) as dataset:
        bands = _choose_bands(path, dataset, options.bands)
        dtypes = {dataset.dtypes[band - 1] for band in bands}
        if any(dtype.startswith("complex") for dtype in dtypes):
            raise ImageError(f"'{path}' has complex numbers. Save their magnitude as a separate band.")
        palette = _palette(dataset, bands[0]) if len(bands) == 1 and dtypes == {"uint8"} else None
        yield GeoTiff(dataset, bands, None if dtypes == {"uint8"} else _window(dataset, bands), palette)


def read_geotiff_mask(path: Path, image: GeoTiff) -> NDArray[np.integer[Any]]:
    """Return the mask of a GeoTIFF from a TIFF with one band; (H, W), 0 where it has no data.

    Raises MaskError for other coordinates than the image's or values that are not integers.
    """
    with _open(path, MaskError) as dataset:
        expected = image.dataset
        if dataset.count != 1:
            raise MaskError(f"Mask '{path}' has {dataset.count} bands; a mask has one, of object values.")
        is_aligned = dataset.crs == expected.crs and dataset.transform.almost_equals(expected.transform, 1e-6)
        if dataset.crs is not None and dataset.shape == expected.shape and not is_aligned:
            found, wanted = (f"{one.crs} and {tuple(one.transform)[:6]}" for one in (dataset, expected))
            raise MaskError(
                f"Mask '{path}' lies elsewhere than its image: it has {found}, the image {wanted}. Warp it "
                "to the image's grid."
            )
        values = dataset.read(1)
        values[dataset.read_masks(1) == 0] = 0
    return to_integers(values, path)


Window = tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns, each from and to."""


class GeoTiffWriter:
    """Writes strips of rows, in order, to an open dataset."""

    def __init__(self, dataset: Any, path: Path) -> None:
        self.dataset, self.path = dataset, path
        self.top = 0
        self.pending = np.empty((dataset.count, 0, dataset.width), dataset.dtypes[0])
        self.checksums: list[tuple[Window, int]] = []

    def write(self, strip: NDArray[Any]) -> None:
        """Write the next rows, (bands, rows, width). Rows of an incomplete block wait for the next call."""
        self.pending = np.concatenate([self.pending, strip.astype(self.pending.dtype)], axis=1)
        rows = self.pending.shape[1]
        if self.top + rows < self.dataset.height:
            rows -= rows % BLOCK_SIZE
        if rows:
            window = ((self.top, self.top + rows), (0, self.dataset.width))
            values = self.pending[:, :rows]
            with _naming_gdal_errors(self.path):
                self.dataset.write(values, window=window)
            self.checksums.append((window, zlib.crc32(values.tobytes())))
            self.top, self.pending = self.top + rows, self.pending[:, rows:].copy()


@contextmanager
def create_geotiff(
    path: Path,
    source: GeoTiff,
    band_names: Sequence[str],
    dtype: str,
    nodata: float,
    palette: Mapping[int, tuple[int, int, int]] | None = None,
) -> Iterator[GeoTiffWriter]:
    """Write a GeoTIFF atomically, with the size and coordinates of `source`: blocks, deflated."""
    dataset = source.dataset
    control_points, control_crs = dataset.gcps
    if control_points:
        coordinates = {"gcps": control_points, "crs": control_crs}
    else:
        coordinates = {"crs": dataset.crs, "transform": dataset.transform}
    profile = {"height": dataset.height, "width": dataset.width, "count": len(band_names), "dtype": dtype}
    profile |= {"nodata": nodata, "tiled": True, "blockxsize": BLOCK_SIZE, "blockysize": BLOCK_SIZE}
    profile |= {"compress": "deflate", "predictor": 3 if dtype == "float32" else 1, "BIGTIFF": "IF_SAFER"}
    with atomic_write(path) as temporary:
        with _naming_gdal_errors(path):
            created = rasterio().open(temporary, "w", driver="GTiff", **profile, **coordinates)
        with closing(created):
            created.descriptions = tuple(band_names)
            if palette is not None:
                created.write_colormap(1, palette)
            writer = GeoTiffWriter(created, path)
            yield writer
            with _naming_gdal_errors(path):
                created.close()  # writes the blocks that GDAL still caches
        _verify(temporary, writer)


def rasterio() -> Any:
    """Return rasterio. Raises KshotError if it is not installed."""
    return import_extra("rasterio", "GeoTIFFs need rasterio", "geo")


@contextmanager
def _naming_gdal_errors(path: Path) -> Iterator[None]:
    """Raise WriteError with `path` if GDAL cannot write, whose errors do not tell reading from writing."""
    try:
        yield
    except rasterio().errors.RasterioError as problem:
        raise write_error(path, reason_of(problem.__cause__ or problem)) from problem


def _verify(written: Path, writer: GeoTiffWriter) -> None:
    """Read a written file again, because GDAL does not report a full disk on closing. Raises WriteError."""
    with _naming_gdal_errors(writer.path), rasterio().open(written) as dataset:
        for window, checksum in writer.checksums:
            if zlib.crc32(dataset.read(window=window).tobytes()) != checksum:
                raise write_error(writer.path, "GDAL has left something out")


@contextmanager
def _open(path: Path, error: type[ImageError | MaskError]) -> Iterator[Any]:
    library = rasterio()
    try:
        with library.Env(GDAL_CACHEMAX=CACHE_BYTES), library.open(path, driver="GTiff") as dataset:
            yield dataset
    except library.errors.RasterioError as problem:
        raise error(f"GDAL cannot read '{path}': {reason_of(problem)}.") from problem


def _choose_bands(path: Path, dataset: Any, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    if wanted is not None:
        if max(wanted) > dataset.count:
            raise ImageError(f"'{path}' has {dataset.count} bands; --bands is {','.join(map(str, wanted))}.")
        return wanted
    colours = zip(dataset.indexes, dataset.colorinterp, strict=True)
    shown = [band for band, meaning in colours if meaning.name != "alpha"]
    return tuple(shown[:3] if len(shown) >= 3 else shown[:1])


def _palette(dataset: Any, band: int) -> NDArray[np.uint8] | None:
    if dataset.colorinterp[band - 1].name != "palette":
        return None
    palette = np.zeros((256, 3), np.uint8)
    for value, (red, green, blue, _) in dataset.colormap(band).items():
        palette[value] = red, green, blue
    return palette


def _window(dataset: Any, bands: Sequence[int]) -> WindowLevel:
    values, valid = _subsample(dataset, bands, max(1, -(-max(dataset.shape) // OVERVIEW_SIZE)))
    return WindowLevel.from_percentiles(values[:, valid])


def _subsample(dataset: Any, bands: Sequence[int], step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    return _read(dataset, bands, out_shape=(len(bands), *(-(-length // step) for length in dataset.shape)))


def _read(dataset: Any, bands: Sequence[int], **options: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return bands, and the pixels where at least one band has data and none is NaN or infinite."""
    values = dataset.read(bands, **options)
    valid = (dataset.read_masks(bands, **options) > 0).any(axis=0)
    return values, valid & np.isfinite(values).all(axis=0)
