"""GeoTIFFs: read window by window, and written with the same coordinates."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import ImageError, KshotError, MaskError, reason_of
from kshot.io.files import cannot_write, replacing
from kshot.io.raster_options import Levels, View, integers

CACHE_BYTES = 64 * 2**20
"""Memory in which GDAL keeps blocks; its own default grows with the machine."""

BLOCK = 512
"""Side in pixels of the blocks of written maps."""

SAMPLE = 1000
"""Pixels a side from which a map's levels are found, and that its overview has at most."""


@dataclass(frozen=True, eq=False)
class Map:
    """An open GeoTIFF, as red, green and blue.

    bands: one or three. levels: of all bands together, which keeps their proportions, so that a thing has
    one colour in a support and in a query; None where they have 8 bits. colours: (256, 3), of a palette.
    """

    dataset: Any
    bands: tuple[int, ...]
    levels: Levels | None
    colours: NDArray[np.uint8] | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.dataset.height, self.dataset.width

    def read(self, box: tuple[int, int, int, int]) -> tuple[Image.Image, NDArray[np.bool_]]:
        """Read a part: its picture, black where there is no data, and where there is, (height, width)."""
        left, top, right, bottom = box
        values, valid = _read(self.dataset, self.bands, window=((top, bottom), (left, right)))
        return self._to_picture(values, valid), valid

    def overview(self, step: int) -> Image.Image:
        """Read every `step`-th pixel of each axis."""
        return self._to_picture(*_sampled(self.dataset, self.bands, step))

    def _to_picture(self, values: NDArray[Any], valid: NDArray[np.bool_]) -> Image.Image:
        if self.levels is not None:
            values = self.levels.to_grey(values)
        values[:, ~valid] = 0
        if self.colours is not None:
            values = self.colours[values[0]].transpose(2, 0, 1) * valid
        whole = np.broadcast_to(values, (3, *valid.shape)).transpose(1, 2, 0)
        return Image.fromarray(np.ascontiguousarray(whole, np.uint8))


@contextmanager
def opened_map(path: Path, view: View) -> Iterator[Map]:
    """Open a GeoTIFF. Raises ImageError for what cannot be read, KshotError if rasterio is missing."""
    with _opened(path, ImageError) as dataset:
        bands = _choose_bands(path, dataset, view.bands)
        kinds = {dataset.dtypes[band - 1] for band in bands}
        if any(kind.startswith("complex") for kind in kinds):
            raise ImageError(f"'{path}' has complex numbers. Give their magnitude, as a band of its own.")
        colours = _colours(dataset, bands[0]) if len(bands) == 1 and kinds == {"uint8"} else None
        yield Map(dataset, bands, None if kinds == {"uint8"} else _levels(dataset, bands), colours)


def read_map_mask(path: Path, image: Map) -> NDArray[np.integer[Any]]:
    """Read the mask of a map from a TIFF with one band; (H, W), 0 where it has no data.

    Raises MaskError if it lies elsewhere than the map, or has values that are no integers.
    """
    with _opened(path, MaskError) as dataset:
        here, there = image.dataset, dataset
        if there.count != 1:
            raise MaskError(f"Mask '{path}' has {there.count} bands; a mask has one, of object values.")
        same_place = there.crs == here.crs and there.transform.almost_equals(here.transform, 1e-6)
        if there.crs is not None and there.shape == here.shape and not same_place:
            places = [f"{one.crs} and {tuple(one.transform)[:6]}" for one in (there, here)]
            raise MaskError(
                f"Mask '{path}' lies elsewhere than its map: it has {places[0]}, the map {places[1]}. Warp "
                "it to the map's grid."
            )
        values = there.read(1)
        values[there.read_masks(1) == 0] = 0
    return integers(values, path)


Window = tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns, from and to."""


class MapWriter:
    """Writes strips of rows, as they come, to a map of a source's size and coordinates."""

    def __init__(self, dataset: Any, path: Path) -> None:
        self.dataset, self.path = dataset, path
        self.top = 0
        self.waiting = np.empty((dataset.count, 0, dataset.width), dataset.dtypes[0])
        self.sums: list[tuple[Window, int]] = []  # of what was written where

    def write(self, strip: NDArray[Any]) -> None:
        """Write the next rows, (bands, rows, width). Only whole blocks: others would be written twice."""
        self.waiting = np.concatenate([self.waiting, strip.astype(self.waiting.dtype)], axis=1)
        rows = self.waiting.shape[1]
        if self.top + rows < self.dataset.height:
            rows -= rows % BLOCK
        if rows:
            window = ((self.top, self.top + rows), (0, self.dataset.width))
            values = self.waiting[:, :rows]
            with _written(self.path):
                self.dataset.write(values, window=window)
            self.sums.append((window, zlib.crc32(values.tobytes())))
            self.top, self.waiting = self.top + rows, self.waiting[:, rows:].copy()


@contextmanager
def writing_map(
    path: Path,
    source: Map,
    band_names: Sequence[str],
    dtype: str,
    nodata: float,
    colours: Mapping[int, tuple[int, int, int]] | None = None,
) -> Iterator[MapWriter]:
    """Write a GeoTIFF beside a source: its size and coordinates, blocks, deflated; whole or not at all."""
    here = source.dataset
    ground_points, their_crs = here.gcps
    placed = {"gcps": ground_points, "crs": their_crs} if ground_points else {"crs": here.crs}
    if not ground_points:
        placed["transform"] = here.transform
    profile = {"height": here.height, "width": here.width, "count": len(band_names), "dtype": dtype}
    profile |= {"nodata": nodata, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    profile |= {"compress": "deflate", "predictor": 3 if dtype == "float32" else 1, "BIGTIFF": "IF_SAFER"}
    with replacing(path) as temporary:
        with _written(path):
            dataset = rasterio().open(temporary, "w", driver="GTiff", **profile, **placed)
        with closing(dataset):
            dataset.descriptions = tuple(band_names)
            if colours is not None:
                dataset.write_colormap(1, colours)
            writer = MapWriter(dataset, path)
            yield writer
            with _written(path):
                dataset.close()  # what it has held back is written now
        _check(temporary, writer)


def rasterio() -> Any:
    """Give rasterio. Raises KshotError if it is not installed."""
    try:
        import rasterio
    except ImportError as error:
        raise KshotError("GeoTIFFs need rasterio: pip install 'kshot[geo]'.") from error
    return rasterio


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Name a file that GDAL cannot write, which else would seem to be the one that is read."""
    try:
        yield
    except rasterio().errors.RasterioError as problem:
        raise cannot_write(path, reason_of(problem.__cause__ or problem)) from problem


def _check(written: Path, writer: MapWriter) -> None:
    """Read a map again: on a full disk GDAL closes it without a word. Raises WriteError."""
    with _written(writer.path), rasterio().open(written) as dataset:
        for window, crc in writer.sums:
            if zlib.crc32(dataset.read(window=window).tobytes()) != crc:
                raise cannot_write(writer.path, "GDAL has left something out")


@contextmanager
def _opened(path: Path, error: type[ImageError | MaskError]) -> Iterator[Any]:
    library = rasterio()
    try:
        with library.Env(GDAL_CACHEMAX=CACHE_BYTES), library.open(path, driver="GTiff") as dataset:
            yield dataset
    except library.errors.RasterioError as problem:
        raise error(f"GDAL can't go on with '{path}': {reason_of(problem)}.") from problem


def _choose_bands(path: Path, dataset: Any, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    if wanted is not None:
        if max(wanted) > dataset.count:
            raise ImageError(
                f"'{path}' has {dataset.count} bands; --bands says {','.join(map(str, wanted))}."
            )
        return wanted
    shown = [
        band
        for band, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True)
        if meaning.name != "alpha"
    ]
    return tuple(shown[:3] if len(shown) >= 3 else shown[:1])


def _colours(dataset: Any, band: int) -> NDArray[np.uint8] | None:
    if dataset.colorinterp[band - 1].name != "palette":
        return None
    colours = np.zeros((256, 3), np.uint8)
    for value, (red, green, blue, _) in dataset.colormap(band).items():
        colours[value] = red, green, blue
    return colours


def _levels(dataset: Any, bands: Sequence[int]) -> Levels:
    values, valid = _sampled(dataset, bands, max(1, -(-max(dataset.shape) // SAMPLE)))
    return Levels.of(values[:, valid])


def _sampled(dataset: Any, bands: Sequence[int], step: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    return _read(dataset, bands, out_shape=(len(bands), *(-(-length // step) for length in dataset.shape)))


def _read(dataset: Any, bands: Sequence[int], **how: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read bands, and where at least one has data and none is not a number."""
    values = dataset.read(bands, **how)
    valid = (dataset.read_masks(bands, **how) > 0).any(axis=0)
    return values, valid & np.isfinite(values).all(axis=0)
