"""Segment a GeoTIFF into a GeoTIFF, strip by strip, in memory that does not grow with its height."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np

from kshot.io.files import save_image
from kshot.io.geotiff import OVERVIEW_SIZE, GeoTiff, GeoTiffWriter, create_geotiff, open_geotiff
from kshot.io.overlays import label_colour, overlay
from kshot.io.raster_options import RasterOptions
from kshot.predict.stats import NO_DATA, PredictionStats, Summary, Thumbnail
from kshot.segmenter import Segmenter


def segment_map(
    segmenter: Segmenter,
    image: Path,
    place: Path,
    class_names: Sequence[str],
    view: RasterOptions,
    with_probability: bool = False,
) -> Summary:
    """Segment a map; its mask or labels, and its probability if wanted, have its size and coordinates.

    place: the results' path, without `_mask.tif` and the like. Where the map has no data the mask is 255 and
    the probability NaN, and so the files say. Raises ImageError for what cannot be read.
    """
    with open_geotiff(image, view) as source, ExitStack() as files:
        answer = files.enter_context(_writing_answer(segmenter, place, source, class_names))
        probability = None
        if with_probability:
            path = place.with_name(f"{place.name}_probability.tif")
            probability = files.enter_context(create_geotiff(path, source, class_names, "float32", np.nan))
        thumbnail, stats = Thumbnail(max(1, -(-max(source.size) // OVERVIEW_SIZE))), PredictionStats()
        for strip in segmenter.predict_strips(source.size, source.read):
            probabilities = strip.class_probabilities
            answer.write(np.where(np.isnan(probabilities[:1]), NO_DATA, strip.labels))
            if probability is not None:
                probability.write(probabilities)
            thumbnail.add(strip)
            stats.add(strip)
        picture, shown = source.overview(thumbnail.step), thumbnail.whole()
    save_image(overlay(picture, shown.labels), place.with_name(f"{place.name}_overlay.png"))
    return stats.summary(picture, shown)


def _writing_answer(
    segmenter: Segmenter, place: Path, source: GeoTiff, class_names: Sequence[str]
) -> AbstractContextManager[GeoTiffWriter]:
    kind, count = ("labels", len(class_names)) if len(segmenter.class_names) > 1 else ("mask", 1)
    colours = {label: label_colour(label) for label in range(count + 1)}
    return create_geotiff(
        place.with_name(f"{place.name}_{kind}.tif"), source, [kind], "uint8", NO_DATA, colours
    )
