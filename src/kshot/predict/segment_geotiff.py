"""Segment a GeoTIFF into a GeoTIFF, strip by strip, in memory that does not grow with its height."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np

from kshot.io.files import save_picture
from kshot.io.geotiff import SAMPLE, Map, MapWriter, opened_map, writing_map
from kshot.io.overlays import label_colour, overlay
from kshot.io.raster_options import View
from kshot.predict.stats import NO_DATA, Answer, Sketch, Tally, probabilities_of, values_of
from kshot.segmenter import LabelSegmenter, Segmenter, explain_strips


def segment_map(
    segmenter: Segmenter | LabelSegmenter,
    image: Path,
    place: Path,
    class_names: Sequence[str],
    view: View,
    with_probability: bool = False,
) -> Answer:
    """Segment a map; its mask or labels, and its probability if wanted, have its size and coordinates.

    place: the results' path, without `_mask.tif` and the like. Where the map has no data the mask is 255 and
    the probability NaN, and so the files say. Raises ImageError for what cannot be read.
    """
    with opened_map(image, view) as source, ExitStack() as files:
        answer = files.enter_context(_writing_answer(segmenter, place, source, class_names))
        probability = None
        if with_probability:
            path = place.with_name(f"{place.name}_probability.tif")
            probability = files.enter_context(writing_map(path, source, class_names, "float32", np.nan))
        sketch, tally = Sketch(max(1, -(-max(source.size) // SAMPLE))), Tally()
        for strip in explain_strips(segmenter, source.size, source.read):
            probabilities = probabilities_of(strip)
            answer.write(np.where(np.isnan(probabilities[:1]), NO_DATA, values_of(strip)))
            if probability is not None:
                probability.write(probabilities)
            sketch.add(strip)
            tally.add(strip)
        picture, shown = source.overview(sketch.step), sketch.whole()
    save_picture(overlay(picture, values_of(shown)), place.with_name(f"{place.name}_overlay.png"))
    return tally.answer(picture, shown)


def _writing_answer(
    segmenter: Segmenter | LabelSegmenter, place: Path, source: Map, class_names: Sequence[str]
) -> AbstractContextManager[MapWriter]:
    kind, count = ("labels", len(class_names)) if isinstance(segmenter, LabelSegmenter) else ("mask", 1)
    colours = {label: label_colour(label) for label in range(count + 1)}
    return writing_map(place.with_name(f"{place.name}_{kind}.tif"), source, [kind], "uint8", NO_DATA, colours)
