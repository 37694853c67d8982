"""Labelled examples: pictures, windows of maps around the object, slices of scans."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import MaskError
from kshot.io.dicom import load_dicom
from kshot.io.filetypes import file_type, is_nifti, is_tiff
from kshot.io.geotiff import open_geotiff, read_geotiff_mask
from kshot.io.images import MaskSource, read_image, read_label_map, read_mask
from kshot.io.nifti import (
    Volume,
    grid_shape,
    load_nifti,
    make_volume,
    read_volume_mask,
    to_canonical,
    to_display,
)
from kshot.io.raster_options import RasterOptions
from kshot.methods.tiling import around, tile_for

MAX_SLICES = 5
"""Slices of a scan that become supports of a class."""

LEAST_AREA = 0.1
"""A slice is left out if it shows less of the object than this part of what the largest slice shows."""

Masks = dict[str, NDArray[np.bool_]]
"""The mask of each class that a picture shows, by name."""

Values = Mapping[str, int | None]
"""Each class's value in the masks; None where there is one class, whose value the masks show."""


def read_labelled(
    image: Path, mask: Path, values: Values, view: RasterOptions
) -> list[tuple[Image.Image, Masks]]:
    """Read a labelled example, which may become several pictures.

    Of a map each class is seen in one window, around its object; of a scan in up to MAX_SLICES slices, which
    are printed. Raises ImageError or MaskError for what cannot be used.
    """
    kind = file_type(image)
    if kind == "geotiff":
        return _read_map(image, mask, values, view)
    if kind == "volume":
        return _read_scan(image, mask, values, view)
    picture = read_image(image)
    size = picture.height, picture.width
    return [(picture, _read_classes(mask, size, values, may_be_empty=True))]


def open_scan(path: Path, view: RasterOptions) -> Volume:
    """Read a NIfTI file, a DICOM file or a folder with a DICOM series."""
    image, levels = (load_nifti(path), None) if is_nifti(path) else load_dicom(path)
    return make_volume(image, view.plane, levels)


def choose_slices(areas: NDArray[np.intp]) -> list[int]:
    """Choose slices of an object by how much of it each shows: the largest of each of MAX_SLICES equal parts.

    They lie apart, so that they show more than the largest ones would, which are neighbours.
    """
    shown = np.flatnonzero(areas >= max(1, LEAST_AREA * areas.max()))
    parts = np.array_split(shown, min(MAX_SLICES, len(shown)))
    return [int(part[areas[part].argmax()]) for part in parts]


def _read_map(
    image: Path, mask: Path, values: Values, view: RasterOptions
) -> list[tuple[Image.Image, Masks]]:
    with open_geotiff(image, view) as source:
        given: MaskSource = read_geotiff_mask(mask, source) if is_tiff(mask) else mask
        try:
            masks = _read_classes(given, source.size, values)
        except MaskError as error:
            raise MaskError(f"'{mask}': {error}") from error
        side = tile_for(source.size, view.tile, view.long_side)
        assert side is not None
        found = []
        for name, whole in masks.items():
            left, top, right, bottom = box = around(whole, side)
            picture, mask_of_it = source.read(box)[0], Image.fromarray(whole[top:bottom, left:right])
            # From here on a window is a picture of its own: that it was seen from afar must show in its size.
            width, height = (max(1, round(length * view.tile / side)) for length in picture.size)
            seen, mask_seen = (one.resize((width, height)) for one in (picture, mask_of_it))
            found.append((seen, {name: np.asarray(mask_seen)}))
    return found


def _read_scan(
    image: Path, mask: Path, values: Values, view: RasterOptions
) -> list[tuple[Image.Image, Masks]]:
    volume, found = open_scan(image, view), []
    for name, whole in _masks_of_scan(image, mask, values, volume).items():
        others = tuple(axis for axis in range(3) if axis != volume.axis)
        chosen = choose_slices(np.count_nonzero(whole, axis=others))
        counted = ", ".join(str(number + 1) for number in chosen)
        print(f"{image}: slices {counted} of {volume.num_slices} are supports of '{name}'.")
        for number in chosen:
            seen = np.ascontiguousarray(to_display(whole[volume.slice_index(number)]))
            found.append((volume.slice_image(number), {name: seen}))
    return found


def _masks_of_scan(image: Path, mask: Path, values: Values, volume: Volume) -> Masks:
    """Read the classes' masks, (X, Y, Z) each. A radiograph's may be a picture of the same size."""
    width, height, depth = grid_shape(volume.source)
    if not is_nifti(mask):
        if is_nifti(image) or depth > 1:
            raise MaskError(f"'{mask}' cannot be the mask of a volume: save it as NIfTI (.nii.gz).")
        pictures = _read_classes(mask, (height, width), values)
        return {name: to_canonical(one.T[..., None], volume.source) for name, one in pictures.items()}
    labels = read_volume_mask(mask, volume)
    flat = labels.reshape(len(labels), -1)
    try:
        found = _read_classes(flat, (flat.shape[0], flat.shape[1]), values)
    except MaskError as error:
        raise MaskError(f"'{mask}': {error}") from error
    return {name: one.reshape(labels.shape) for name, one in found.items()}


def _read_classes(
    source: MaskSource, size: tuple[int, int], values: Values, *, may_be_empty: bool = False
) -> Masks:
    known = {name: value for name, value in values.items() if value is not None}
    if known:
        return read_label_map(source, size, known)
    mask = read_mask(source, size, may_be_empty=may_be_empty)
    return {name: mask for name in values if mask.any()}
