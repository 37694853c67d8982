"""Make support images of labelled GeoTIFFs (windows around the object) and volumes (slices)."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import MaskError
from kshot.io.filetypes import is_nifti, is_tiff
from kshot.io.geotiff import open_geotiff, read_geotiff_mask
from kshot.io.images import MaskSource
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
from kshot.predict.class_masks import ClassMasks, ClassValues, read_class_masks

logger = logging.getLogger(__name__)

MAX_SLICES = 5
"""Slices of a volume that become support images of a class, at most."""

MIN_AREA = 0.1
"""A slice is skipped if its area of the object is below this share of the largest slice's."""


def read_geotiff_supports(
    path: Path, mask: Path, values: ClassValues, raster_options: RasterOptions
) -> list[tuple[Image.Image, ClassMasks]]:
    """Return one window of a GeoTIFF for each class, around its object.

    Raises ImageError or MaskError for a file that cannot be used.
    """
    with open_geotiff(path, raster_options) as source:
        mask_source: MaskSource = read_geotiff_mask(mask, source) if is_tiff(mask) else mask
        try:
            masks = read_class_masks(mask_source, source.size, values, may_be_instances=not is_tiff(mask))
        except MaskError as error:
            raise MaskError(f"'{mask}': {error}") from error
        side = tile_for(source.size, raster_options.tile, raster_options.long_side)
        assert side is not None
        found = []
        for name, whole in masks.items():
            left, top, right, bottom = box = around(whole, side)
            window, window_mask = source.read(box)[0], Image.fromarray(whole[top:bottom, left:right])
            # The window becomes an image without `long_side`, so it is scaled down here.
            width, height = (max(1, round(length * raster_options.tile / side)) for length in window.size)
            small, small_mask = (one.resize((width, height)) for one in (window, window_mask))
            found.append((small, {name: np.asarray(small_mask)}))
    return found


def read_volume_supports(
    path: Path, mask: Path, values: ClassValues, raster_options: RasterOptions
) -> list[tuple[Image.Image, ClassMasks]]:
    """Return up to MAX_SLICES slices of a volume for each class, and log which.

    Raises ImageError or MaskError for a file that cannot be used.
    """
    volume, found = open_volume(path, raster_options), []
    for name, whole in _read_volume_masks(path, mask, values, volume).items():
        in_plane = tuple(axis for axis in range(3) if axis != volume.axis)
        chosen = choose_slices(np.count_nonzero(whole, axis=in_plane))
        numbers = ", ".join(str(number + 1) for number in chosen)
        logger.info(f"{path}: slices {numbers} of {volume.num_slices} are support images of '{name}'.")
        for number in chosen:
            slice_mask = np.ascontiguousarray(to_display(whole[volume.slice_index(number)]))
            found.append((volume.slice_image(number), {name: slice_mask}))
    return found


def open_volume(path: Path, raster_options: RasterOptions) -> Volume:
    """Read a NIfTI file, a DICOM file or a folder with a DICOM series."""
    if is_nifti(path):
        return make_volume(load_nifti(path), raster_options.plane, None)
    from kshot.io.dicom import load_dicom

    image, window = load_dicom(path)
    return make_volume(image, raster_options.plane, window)


def choose_slices(areas: NDArray[np.intp]) -> list[int]:
    """Return the indices of up to MAX_SLICES slices, given the object's area in each slice.

    The slices that show the object are divided into MAX_SLICES equal parts, and each part gives its largest:
    the largest of all would be neighbours, which look alike.
    """
    shown = np.flatnonzero(areas >= max(1, MIN_AREA * areas.max()))
    parts = np.array_split(shown, min(MAX_SLICES, len(shown)))
    return [int(part[areas[part].argmax()]) for part in parts]


def _read_volume_masks(path: Path, mask: Path, values: ClassValues, volume: Volume) -> ClassMasks:
    """Return the classes' masks, (X, Y, Z) each. The mask of a radiograph may be an image of its size."""
    width, height, depth = grid_shape(volume.source)
    if not is_nifti(mask):
        if is_nifti(path) or depth > 1:
            raise MaskError(f"'{mask}' cannot be the mask of a volume: save it as NIfTI (.nii.gz).")
        flat_masks = read_class_masks(mask, (height, width), values)
        return {name: to_canonical(one.T[..., None], volume.source) for name, one in flat_masks.items()}
    labels = read_volume_mask(mask, volume)
    flat = labels.reshape(len(labels), -1)
    try:
        found = read_class_masks(flat, (flat.shape[0], flat.shape[1]), values, may_be_instances=False)
    except MaskError as error:
        raise MaskError(f"'{mask}': {error}") from error
    return {name: one.reshape(labels.shape) for name, one in found.items()}
