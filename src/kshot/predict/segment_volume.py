"""Segment a volume, slice by slice, into a NIfTI file on the same voxels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.io.files import save_image
from kshot.io.nifti import Volume, from_display, to_display, write_volume
from kshot.io.overlays import montage, overlay
from kshot.io.raster_options import RasterOptions
from kshot.predict.raster_supports import open_volume
from kshot.predict.stats import PredictionStats, Summary
from kshot.segmenter import Segmenter

MAX_SLICES = 16
"""Slices on the overlay, evenly spaced."""

OVERLAY_SIDE = 1600
"""Pixels a side, at most, of an overlay with several slices."""


def segment_volume(
    segmenter: Segmenter,
    path: Path,
    out: Path,
    class_names: Sequence[str],
    raster_options: RasterOptions,
    with_probability: bool = False,
) -> Summary:
    """Segment a volume; write its mask or labels, and its probability, on its voxels.

    out: path of the results without `_mask.nii.gz`. The summary shows the slice with the largest mask.
    Raises ImageError for a file that cannot be read.
    """
    volume = open_volume(path, raster_options)
    labels = np.zeros(volume.voxels.shape, np.uint8)
    probability = np.zeros((len(class_names) if with_probability else 0, *labels.shape), np.float32)
    stats, largest = PredictionStats(), -1
    for number in range(volume.num_slices):
        image = volume.slice_image(number)
        result = segmenter.predict(image)
        index = volume.slice_index(number)
        labels[index] = from_display(result.labels)
        for label in range(len(probability)):
            probability[label][index] = from_display(result.class_probabilities[label])
        stats.add(result)
        if (num_pixels := int(np.count_nonzero(labels[index]))) > largest:
            largest, shown = num_pixels, (image, result)
    kind = "labels" if len(segmenter.class_names) > 1 else "mask"
    write_volume(labels, volume, out.with_name(f"{out.name}_{kind}.nii.gz"))
    if with_probability:
        of_all = probability[0] if len(class_names) == 1 else np.moveaxis(probability, 0, -1)
        write_volume(of_all, volume, out.with_name(f"{out.name}_probability.nii.gz"))
    save_image(_draw(volume, labels), out.with_name(f"{out.name}_overlay.png"))
    return stats.summary(*shown)


def _draw(volume: Volume, labels: NDArray[np.uint8]) -> Image.Image:
    """Return the overlays of evenly spaced slices side by side."""
    numbers = np.linspace(0, volume.num_slices - 1, min(MAX_SLICES, volume.num_slices)).round().astype(int)
    overlays = [
        overlay(volume.slice_image(n), np.ascontiguousarray(to_display(labels[volume.slice_index(n)])))
        for n in numbers
    ]
    return montage(overlays, OVERLAY_SIDE)
