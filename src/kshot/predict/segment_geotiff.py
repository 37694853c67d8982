"""Segment a GeoTIFF into a GeoTIFF, strip by strip, in memory that does not grow with its height."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np

from kshot.annotations.writers.base import MapFormat
from kshot.io.files import save_image
from kshot.io.geotiff import OVERVIEW_SIZE, GeoTiff, GeoTiffWriter, create_geotiff, open_geotiff
from kshot.io.overlays import label_colour, overlay
from kshot.io.raster_options import RasterOptions
from kshot.predict.stats import NO_DATA, PredictionStats, Summary, Thumbnail, WholeMap
from kshot.results.instances import DEFAULT_INSTANCES, InstanceOptions
from kshot.segmenter import Segmenter


def segment_geotiff(
    segmenter: Segmenter,
    path: Path,
    out: Path,
    class_names: Sequence[str],
    raster_options: RasterOptions,
    with_probability: bool = False,
    *,
    map_formats: Sequence[MapFormat] = (),
    instance_options: InstanceOptions = DEFAULT_INSTANCES,
) -> Summary:
    """Segment a GeoTIFF; write its mask or labels, and its probability, with its size and coordinates.

    out: path of the results without `_mask.tif`. A segmenter without a tile uses that of `raster_options`.
    Without data the mask is 255 and the probability NaN, which the files declare as no data.
    map_formats: to write the instances in; they need three bytes of memory for each pixel of the map.
    Raises ImageError for a file that cannot be read.
    """
    if segmenter.tile is None:
        segmenter = segmenter.clone()
        segmenter.tile = raster_options.tile
    with open_geotiff(path, raster_options) as source, ExitStack() as files:
        mask_file = files.enter_context(_create_mask(segmenter, out, source, class_names))
        probability_file = None
        if with_probability:
            target = out.with_name(f"{out.name}_probability.tif")
            created = create_geotiff(target, source, class_names, "float32", np.nan)
            probability_file = files.enter_context(created)
        vectors = WholeMap() if map_formats else None
        thumbnail, stats = Thumbnail(max(1, -(-max(source.size) // OVERVIEW_SIZE))), PredictionStats()
        for strip in segmenter.predict_strips(source.size, source.read):
            probabilities = strip.class_probabilities
            mask_file.write(np.where(np.isnan(probabilities[:1]), NO_DATA, strip.labels))
            if probability_file is not None:
                probability_file.write(probabilities)
            thumbnail.add(strip)
            stats.add(strip)
            if vectors is not None:
                vectors.add(strip)
        image, small_result = source.overview(thumbnail.step), thumbnail.whole()
        if vectors is not None:
            instances = vectors.whole().instances(**instance_options.model_dump())
            for one in map_formats:
                one.write(out.with_name(one.file.format(name=out.name)), source, instances)
    save_image(overlay(image, small_result.labels), out.with_name(f"{out.name}_overlay.png"))
    return stats.summary(image, small_result)


def _create_mask(
    segmenter: Segmenter, out: Path, source: GeoTiff, class_names: Sequence[str]
) -> AbstractContextManager[GeoTiffWriter]:
    kind = "labels" if len(segmenter.class_names) > 1 else "mask"
    colours = {label: label_colour(label) for label in (0, *segmenter.class_values.values())}
    return create_geotiff(out.with_name(f"{out.name}_{kind}.tif"), source, [kind], "uint8", NO_DATA, colours)
