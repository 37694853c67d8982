"""Where episodes come from that are not two whole images of a class: each source draws an image pair.

A source draws from a generator alone, so that the same number gives the same episode. What it draws, query
and support, is then seen in views of its own (`training.augment`).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from kshot.data.base import Dataset
from kshot.data.sampling import Fold
from kshot.errors import DataError
from kshot.io.images import read_image
from kshot.training.augment import (
    GENTLE,
    STRONG,
    View,
    ViewRanges,
    apply_colours,
    apply_kind,
    apply_view,
    draw_colours,
    draw_kind,
    draw_view,
)
from kshot.training.regions import SCALES, Superpixels, draw_region, enlarge, find_superpixels
from kshot.training.synthetic import (
    Item,
    Pair,
    Random,
    Shown,
    draw_items,
    draw_mosaic,
    draw_thin,
    patch,
    round_item,
)
from kshot.types import IGNORE_INDEX, GroundTruth

KEPT = 2048
"""Decoded images in memory, some 0.6 MB each; as many masks, and superpixels."""

LONG_SIDE = 512
"""Pixels of the longer side beyond which images are made smaller before they are kept."""

TRIES = 8
"""Draws of a region, or of a view that shows enough of the object, before the next image or the whole one."""

LEAST_SEEN = 0.25
"""Share of the object that a view must show, and LEAST_PIXELS of the network's square."""

LEAST_PIXELS = 30


class Drawn(NamedTuple):
    """An episode at the network's size. class_name: None for what has no name."""

    query: Shown
    support: Shown
    class_name: str | None = None


class Source(Protocol):
    """What draws episodes of one kind."""

    def draw(self, random: Random, size: int) -> Drawn:
        """Draw an episode, its images `size` pixels square."""


class Photographs:
    """Images of a data set that may be shown, and where their classes are.

    fold: its pairs. hidden: ids of classes that are never labelled: their pixels are 255, and images that
    show one are not in `names`, from which regions and materials are taken.
    """

    def __init__(
        self, dataset: Dataset, fold: Fold, hidden: Sequence[int] = (), *, keep_unknown: bool = True
    ) -> None:
        self.dataset, self.fold, self.hidden, self.keep_unknown = (
            dataset,
            fold,
            frozenset(hidden),
            keep_unknown,
        )
        all_names = sorted({name for names in fold.images.values() for name in names})
        self.names = [name for name in all_names if not self.hidden & set(dataset.classes_in(name))]
        self.image = lru_cache(maxsize=KEPT)(self._image)
        self.mask = lru_cache(maxsize=KEPT)(self._mask)
        self.superpixels = lru_cache(maxsize=KEPT)(self._superpixels)

    def _mask(self, name: str, class_id: int) -> GroundTruth:
        """Read where a class is, in `image`'s size: 1, 0, and 255 where it is not known or hidden."""
        mask = self.dataset.ground_truth(name, class_id).copy()
        if not self.keep_unknown:
            mask[mask == IGNORE_INDEX] = 0
        for other in self.hidden & set(self.dataset.classes_in(name)):
            mask[self.dataset.ground_truth(name, other) == 1] = IGNORE_INDEX
        small = _smaller((mask.shape[1], mask.shape[0]))
        return np.array(Image.fromarray(mask).resize(small, Image.Resampling.NEAREST))

    def _image(self, name: str) -> Image.Image:
        image = read_image(self.dataset.image_path(name))
        return image.resize(_smaller(image.size), Image.Resampling.BILINEAR)

    def _superpixels(self, name: str, scale: float) -> Superpixels:
        return find_superpixels(self.image(name), scale)


class ClassPairs:
    """Two images of one class, of sets that are drawn equally often.

    cap: a class of a set is drawn as often as it has images, but as if it had this many at most.
    """

    def __init__(self, sets: Sequence[Photographs], cap: int | None, ranges: ViewRanges = GENTLE) -> None:
        self.sets, self.ranges = sets, ranges
        self.class_ids = [list(one.fold.images) for one in sets]
        self.chances = []
        for one in sets:
            counts = np.array([min(len(n), cap or len(n)) for n in one.fold.images.values()], dtype=float)
            self.chances.append(counts / counts.sum())

    def draw(self, random: Random, size: int) -> Drawn:
        """Draw an episode."""
        place = int(random.integers(len(self.sets)))
        photographs = self.sets[place]
        class_id = int(random.choice(self.class_ids[place], p=self.chances[place]))
        names = photographs.fold.images[class_id]
        first, second = random.choice(len(names), 2, replace=False)
        query, support = (
            look(photographs.image(name), photographs.mask(name, class_id), random, self.ranges, size)
            for name in (names[first], names[second])
        )
        return Drawn(query, support, photographs.fold.class_names[class_id])


class Regions:
    """A region of an image, in two views of it. inside: only regions in an object, its parts."""

    def __init__(self, sets: Sequence[Photographs], *, inside: bool = False) -> None:
        self.sets, self.inside = sets, inside

    def draw(self, random: Random, size: int) -> Drawn:
        """Draw an episode."""
        while True:
            photographs = self.sets[int(random.integers(len(self.sets)))]
            name = photographs.names[int(random.integers(len(photographs.names)))]
            image = photographs.image(name)
            found = photographs.superpixels(name, float(random.choice(SCALES)))
            objects = None
            if self.inside:
                shown = photographs.dataset.classes_in(name)
                mask = photographs.mask(name, int(random.choice(shown))) == 1
                height, width = found.labels.shape
                objects = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
            for _ in range(TRIES):
                region = draw_region(found, random, objects)
                if region is not None:
                    mask = enlarge(region, (image.height, image.width))
                    image = apply_kind(image, draw_kind(random))
                    query, support = (look(image, mask, random, STRONG, size) for _ in range(2))
                    return Drawn(query, support)


class Items:
    """Small items that repeat: round ones of any material, or objects cut out."""

    def __init__(self, sets: Sequence[Photographs]) -> None:
        self.sets = sets

    def draw(self, random: Random, size: int) -> Drawn:
        """Draw an episode."""
        item = self._item(random)
        other = self._item(random) if random.random() < 0.5 else None
        return _coloured(draw_items(any_image(self.sets, random), item, other, random, size), random)

    def _item(self, random: Random) -> Item:
        if random.random() < 0.6:
            return round_item(any_image(self.sets, random), random)
        while True:
            photographs = self.sets[int(random.integers(len(self.sets)))]
            name = photographs.names[int(random.integers(len(photographs.names)))]
            class_id = int(random.choice(photographs.dataset.classes_in(name)))
            shape = photographs.mask(name, class_id) == 1
            rows, columns = shape.any(axis=1).nonzero()[0], shape.any(axis=0).nonzero()[0]
            if len(rows) > 16 and len(columns) > 16:
                box = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
                image = photographs.image(name).crop(box)
                return Item(image, shape[box[1] : box[3], box[0] : box[2]])


class Mosaics:
    """Textures beside textures."""

    def __init__(self, sets: Sequence[Photographs]) -> None:
        self.sets = sets

    def draw(self, random: Random, size: int) -> Drawn:
        """Draw an episode."""
        count = int(random.integers(2, 6))
        materials = [patch(any_image(self.sets, random), random, size, (0.15, 0.5)) for _ in range(count)]
        return _coloured(draw_mosaic(materials, random, size), random)


class Thin:
    """Thin structures over a texture."""

    def __init__(self, sets: Sequence[Photographs]) -> None:
        self.sets = sets

    def draw(self, random: Random, size: int) -> Drawn:
        """Draw an episode."""
        return _coloured(draw_thin(any_image(self.sets, random), random, size), random)


class Mixture:
    """Draws from several sources, each in proportion to its weight.

    Raises DataError if no weight is above 0.
    """

    def __init__(self, weighted: Mapping[Source, float]) -> None:
        used = {source: weight for source, weight in weighted.items() if weight > 0}
        if not used:
            raise DataError("No kind of episode has a weight above 0: there is nothing to train on.")
        self.sources = list(used)
        self.chances = np.array(list(used.values())) / sum(used.values())

    def draw(self, random: Random, size: int) -> Drawn:
        """Draw an episode."""
        source = self.sources[int(random.choice(len(self.sources), p=self.chances))]
        return source.draw(random, size)


def _smaller(size: tuple[int, int]) -> tuple[int, int]:
    """Say how large (width, height) an image is kept."""
    factor = min(1.0, LONG_SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def any_image(sets: Sequence[Photographs], random: Random) -> Image.Image:
    """Draw an image of any set."""
    photographs = sets[int(random.integers(len(sets)))]
    return photographs.image(photographs.names[int(random.integers(len(photographs.names)))])


def look(image: Image.Image, mask: GroundTruth, random: Random, ranges: ViewRanges, size: int) -> Shown:
    """Show an image in a random view in which enough of the object is seen; if none is found, as it is."""
    share = float((mask == 1).mean())
    for _ in range(TRIES):
        view = draw_view(random, ranges)
        seen, labels = apply_view(image, mask, view, size)
        whole = share * (size * view.scale) ** 2
        pixels = int((labels == 1).sum())
        if pixels >= max(LEAST_PIXELS, LEAST_SEEN * min(whole, size**2)):
            return Shown(seen, labels)
    return Shown(*apply_view(image, mask, View(), size))


def _coloured(pair: Pair, random: Random) -> Drawn:
    """Make both images one kind, then change the colours of each."""
    kind = draw_kind(random)
    query, support = (
        Shown(apply_colours(apply_kind(one.image, kind), draw_colours(random, 0.6)), one.mask) for one in pair
    )
    return Drawn(query, support)
