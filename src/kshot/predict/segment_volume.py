"""Segment a scan, slice by slice, into a NIfTI volume on its grid."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.io.files import save_image
from kshot.io.nifti import Volume, from_display, to_display, write_volume
from kshot.io.overlays import montage, overlay
from kshot.io.raster_options import RasterOptions
from kshot.predict.raster_supports import open_scan
from kshot.predict.stats import PredictionStats, Summary
from kshot.segmenter import Segmenter

SHOWN = 16
"""Slices on the overlay, evenly spaced."""

OVERLAY_SIDE = 1600
"""Pixels that the overlay has a side, at most, if it shows several slices."""


def segment_scan(
    segmenter: Segmenter,
    image: Path,
    place: Path,
    class_names: Sequence[str],
    view: RasterOptions,
    with_probability: bool = False,
) -> Summary:
    """Segment a scan; its mask or labels, and its probability if wanted, lie on its voxels.

    place: the results' path, without `_mask.nii.gz` and the like. The answer that is given back is that of
    the slice in which most was found. Raises ImageError for what cannot be read.
    """
    volume = open_scan(image, view)
    found = np.zeros(volume.voxels.shape, np.uint8)
    probability = np.zeros((len(class_names) if with_probability else 0, *found.shape), np.float32)
    stats, most = PredictionStats(), -1
    for number in range(volume.num_slices):
        picture = volume.slice_image(number)
        result = segmenter.predict(picture)
        here = volume.slice_index(number)
        found[here] = from_display(result.labels)
        for label in range(len(probability)):
            probability[label][here] = from_display(result.class_probabilities[label])
        stats.add(result)
        if (pixels := int(np.count_nonzero(found[here]))) > most:
            most, shown = pixels, (picture, result)
    kind = "labels" if len(segmenter.class_names) > 1 else "mask"
    write_volume(found, volume, place.with_name(f"{place.name}_{kind}.nii.gz"))
    if with_probability:
        of_all = probability[0] if len(class_names) == 1 else np.moveaxis(probability, 0, -1)
        write_volume(of_all, volume, place.with_name(f"{place.name}_probability.nii.gz"))
    save_image(_draw(volume, found), place.with_name(f"{place.name}_overlay.png"))
    return stats.summary(*shown)


def _draw(volume: Volume, found: NDArray[np.uint8]) -> Image.Image:
    """Put slices with what was found on them side by side."""
    numbers = np.linspace(0, volume.num_slices - 1, min(SHOWN, volume.num_slices)).round().astype(int)
    drawn = [
        overlay(volume.slice_image(n), np.ascontiguousarray(to_display(found[volume.slice_index(n)])))
        for n in numbers
    ]
    return montage(drawn, OVERLAY_SIDE)
