"""Sources of episodes: each draws pairs of images of one kind.

A source draws from a generator alone, so the same number gives the same episode. Query and support have
different views (`training.augment`).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

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
    apply_color_jitter,
    apply_kind,
    apply_view,
    draw_color_jitter,
    draw_kind,
    draw_view,
)
from kshot.training.regions import SCALES, Superpixels, draw_region, enlarge, find_superpixels
from kshot.training.synthetic import (
    Item,
    MaskedImage,
    Pair,
    Random,
    draw_items,
    draw_mosaic,
    draw_thin,
    patch,
    round_item,
)
from kshot.types import IGNORE_INDEX, GroundTruth

CACHE_SIZE = 2048
"""Decoded images in memory, about 0.6 MB each; the same number of masks and of superpixels."""

LONG_SIDE = 512
"""Longer side in pixels above which images are downscaled before they are cached."""

TRIES = 8
"""Draws of a region before another image is tried, or of a view before the whole image is used."""

MIN_VISIBLE = 0.25
"""Share of the object that a view must show. It must also cover MIN_PIXELS of the network's square."""

MIN_PIXELS = 30


class Source(Protocol):
    """Draws episodes of one kind."""

    def draw(self, random: Random, size: int) -> Pair:
        """Draw an episode with square images of `size` pixels."""


class ImagePool:
    """Images and masks of a data set, cached in memory.

    fold: its pairs. excluded: ids of classes that are never labelled: their pixels are 255, and images with
    one are not in `names`, from which regions and materials are taken.
    """

    def __init__(
        self, dataset: Dataset, fold: Fold, excluded: Sequence[int] = (), *, keep_unknown: bool = True
    ) -> None:
        self.dataset, self.fold = dataset, fold
        self.excluded, self.keep_unknown = frozenset(excluded), keep_unknown
        all_names = sorted({name for names in fold.images.values() for name in names})
        self.names = [name for name in all_names if not self.excluded & set(dataset.classes_in(name))]
        self.image = lru_cache(maxsize=CACHE_SIZE)(self._image)
        self.mask = lru_cache(maxsize=CACHE_SIZE)(self._mask)
        self.superpixels = lru_cache(maxsize=CACHE_SIZE)(self._superpixels)

    def _mask(self, name: str, class_id: int) -> GroundTruth:
        """Return a class's mask in `image`'s size: 1, 0, and 255 for unknown pixels and excluded classes."""
        mask = self.dataset.ground_truth(name, class_id).copy()
        if not self.keep_unknown:
            mask[mask == IGNORE_INDEX] = 0
        for other in self.excluded & set(self.dataset.classes_in(name)):
            mask[self.dataset.ground_truth(name, other) == 1] = IGNORE_INDEX
        small = _cached_size((mask.shape[1], mask.shape[0]))
        return np.array(Image.fromarray(mask).resize(small, Image.Resampling.NEAREST))

    def _image(self, name: str) -> Image.Image:
        image = read_image(self.dataset.image_path(name))
        return image.resize(_cached_size(image.size), Image.Resampling.BILINEAR)

    def _superpixels(self, name: str, scale: float) -> Superpixels:
        return find_superpixels(self.image(name), scale)


class ClassPairs:
    """Two images of one class; the data sets are drawn equally often.

    cap: a class is drawn in proportion to its number of images, up to this number.
    """

    def __init__(self, sets: Sequence[ImagePool], cap: int | None, ranges: ViewRanges = GENTLE) -> None:
        self.sets, self.ranges = sets, ranges
        self.class_ids = [list(one.fold.images) for one in sets]
        self.chances = []
        for one in sets:
            counts = np.array([min(len(n), cap or len(n)) for n in one.fold.images.values()], dtype=float)
            self.chances.append(counts / counts.sum())

    def draw(self, random: Random, size: int) -> Pair:
        """Draw an episode."""
        index = int(random.integers(len(self.sets)))
        pool = self.sets[index]
        class_id = int(random.choice(self.class_ids[index], p=self.chances[index]))
        names = pool.fold.images[class_id]
        first, second = random.choice(len(names), 2, replace=False)
        query, support = (
            view_with_object(pool.image(name), pool.mask(name, class_id), random, self.ranges, size)
            for name in (names[first], names[second])
        )
        return Pair(query, support, pool.fold.class_names[class_id])


class Regions:
    """A region of an image in two views. inside: only regions inside an object, its parts."""

    def __init__(self, sets: Sequence[ImagePool], *, inside: bool = False) -> None:
        self.sets, self.inside = sets, inside

    def draw(self, random: Random, size: int) -> Pair:
        """Draw an episode."""
        while True:
            pool, name = _draw_image(self.sets, random)
            image = pool.image(name)
            found = pool.superpixels(name, float(random.choice(SCALES)))
            objects = None
            if self.inside:
                class_ids = pool.dataset.classes_in(name)
                mask = pool.mask(name, int(random.choice(class_ids))) == 1
                height, width = found.labels.shape
                objects = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
            for _ in range(TRIES):
                region = draw_region(found, random, objects)
                if region is not None:
                    mask = enlarge(region, (image.height, image.width))
                    image = apply_kind(image, draw_kind(random))
                    query, support = (view_with_object(image, mask, random, STRONG, size) for _ in range(2))
                    return Pair(query, support)


class Items:
    """Small repeated items: round ones of any material, or cut-out objects."""

    def __init__(self, sets: Sequence[ImagePool]) -> None:
        self.sets = sets

    def draw(self, random: Random, size: int) -> Pair:
        """Draw an episode."""
        item = self._item(random)
        other = self._item(random) if random.random() < 0.5 else None
        return _jitter(draw_items(any_image(self.sets, random), item, other, random, size), random)

    def _item(self, random: Random) -> Item:
        if random.random() < 0.6:
            return round_item(any_image(self.sets, random), random)
        while True:
            pool, name = _draw_image(self.sets, random)
            class_id = int(random.choice(pool.dataset.classes_in(name)))
            shape = pool.mask(name, class_id) == 1
            rows, columns = shape.any(axis=1).nonzero()[0], shape.any(axis=0).nonzero()[0]
            if len(rows) > 16 and len(columns) > 16:
                box = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
                image = pool.image(name).crop(box)
                return Item(image, shape[box[1] : box[3], box[0] : box[2]])


class Mosaics:
    """Textures beside textures."""

    def __init__(self, sets: Sequence[ImagePool]) -> None:
        self.sets = sets

    def draw(self, random: Random, size: int) -> Pair:
        """Draw an episode."""
        count = int(random.integers(2, 6))
        materials = [patch(any_image(self.sets, random), random, size, (0.15, 0.5)) for _ in range(count)]
        return _jitter(draw_mosaic(materials, random, size), random)


class Thin:
    """Thin structures over a texture."""

    def __init__(self, sets: Sequence[ImagePool]) -> None:
        self.sets = sets

    def draw(self, random: Random, size: int) -> Pair:
        """Draw an episode."""
        return _jitter(draw_thin(any_image(self.sets, random), random, size), random)


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

    def draw(self, random: Random, size: int) -> Pair:
        """Draw an episode."""
        source = self.sources[int(random.choice(len(self.sources), p=self.chances))]
        return source.draw(random, size)


def _cached_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (width, height) at which an image is cached."""
    factor = min(1.0, LONG_SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def any_image(sets: Sequence[ImagePool], random: Random) -> Image.Image:
    """Draw an image of any data set."""
    pool, name = _draw_image(sets, random)
    return pool.image(name)


def _draw_image(sets: Sequence[ImagePool], random: Random) -> tuple[ImagePool, str]:
    """Draw a data set, and the name of one of its images."""
    pool = sets[int(random.integers(len(sets)))]
    return pool, pool.names[int(random.integers(len(pool.names)))]


def view_with_object(
    image: Image.Image, mask: GroundTruth, random: Random, ranges: ViewRanges, size: int
) -> MaskedImage:
    """Return a random view that shows enough of the object; if none is found, the squashed image."""
    share = float((mask == 1).mean())
    for _ in range(TRIES):
        view = draw_view(random, ranges)
        visible, labels = apply_view(image, mask, view, size)
        whole = share * (size * view.scale) ** 2
        pixels = int((labels == 1).sum())
        if pixels >= max(MIN_PIXELS, MIN_VISIBLE * min(whole, size**2)):
            return MaskedImage(visible, labels)
    return MaskedImage(*apply_view(image, mask, View(), size))


def _jitter(pair: Pair, random: Random) -> Pair:
    """Convert both images to one kind, then change the colors of each."""
    kind = draw_kind(random)
    query, support = (
        MaskedImage(apply_color_jitter(apply_kind(one.image, kind), draw_color_jitter(random, 0.6)), one.mask)
        for one in (pair.query, pair.support)
    )
    return Pair(query, support)
