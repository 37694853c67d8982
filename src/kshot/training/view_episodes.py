"""Episodes of the kinds that a recipe mixes, in augmented views, each drawn by seed and number.

Features are computed at every use, as no two views are the same. Episodes 2 n and 2 n + 1 are one pair of
images with exchanged roles: encoding an image costs as much as correlating it, so each is used twice.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from kshot.data.base import Dataset
from kshot.data.base_classes import drop_excluded, excluded_classes, present, train_fold
from kshot.data.folder import Folder
from kshot.data.folds import novel_names
from kshot.data.loading import read_ahead
from kshot.data.sampling import needed_images
from kshot.errors import DataError
from kshot.methods.episode import select
from kshot.methods.hsnet import HSNet
from kshot.methods.two_pass import TwoPass
from kshot.models.base_learner import mask_class_logit
from kshot.training.augment import to_tensor
from kshot.training.episodes import Batch
from kshot.training.recipes import TrainConfig
from kshot.training.sources import ClassPairs, ImagePool, Items, Mixture, Mosaics, Regions, Thin
from kshot.training.synthetic import Pair
from kshot.types import Support


class PairTensors(NamedTuple):
    """A pair of images: query and support of its first episode.

    images: (2, 3, S, S) in [0, 1]. masks: (2, S, S) long of 0, 1 and 255. base_index: index of its class
    among the base learner's, -1 if it is none of them.
    """

    images: Tensor
    masks: Tensor
    base_index: int


class ViewEpisodes:
    """All episodes of a training, by number.

    extra: extra data sets by name; classes that are novel in the fold are never labelled in them.
    base_classes: the base learner's classes. Raises DataError if there is nothing to draw from.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        extra: Mapping[str, Folder],
        base_classes: Sequence[str] = (),
    ) -> None:
        assert config.mix is not None
        self.config = config
        self.base_indices = {name: index for index, name in enumerate(base_classes)}
        main = _base_images(config, dataset)
        others = [_without(one, novel_names(config.data, config.fold)) for one in extra.values()]
        self.image_names = sorted({name for names in main.fold.images.values() for name in names})
        everything = [main, *others]
        mix, cap = config.mix, config.class_cap
        self.source = Mixture(
            {
                ClassPairs([main], cap): mix.classes,
                **({ClassPairs(others, cap): mix.extra} if others else {}),
                Regions(everything): mix.regions,
                Regions(everything, inside=True): mix.parts,
                Items(everything): mix.items,
                Mosaics(everything): mix.mosaics,
                Thin(everything): mix.thin,
            }
        )

    def draw(self, index: int, size: int) -> Pair:
        """Draw an episode by its number, with square images of `size` pixels."""
        query, support, class_name = self._pair(index // 2, size)
        return Pair(support, query, class_name) if index % 2 else Pair(query, support, class_name)

    def names(self, indices: Sequence[int]) -> list[dict[str, int]]:
        """Return the numbers of episodes, for logs."""
        return [{"episode": index} for index in indices]

    def pair(self, number: int, size: int) -> PairTensors:
        """Draw a pair of images by its number."""
        query, support, class_name = self._pair(number, size)
        return PairTensors(
            torch.stack([to_tensor(one.image) for one in (query, support)]),
            torch.from_numpy(np.stack([query.mask, support.mask])).long(),
            self.base_indices.get(class_name or "", -1),
        )

    def batches(
        self, parts: Iterable[Sequence[int]], size: int, method: HSNet | TwoPass, workers: int = 0
    ) -> Iterator[Batch]:
        """Yield batches of episodes, given by their numbers; a method's backbones compute the features."""
        parts = list(parts)
        pairs = [list(dict.fromkeys(index // 2 for index in part)) for part in parts]
        found = read_ahead(_Pairs(self, size), workers, lambda number: f"pair {number}", batches=pairs)
        for part, numbers, drawn in zip(parts, pairs, found, strict=True):
            yield self._batch(part, numbers, PairTensors(*drawn), method)

    def _pair(self, number: int, size: int) -> Pair:
        return self.source.draw(np.random.default_rng((self.config.seed, number)), size)

    def _batch(
        self, indices: Sequence[int], numbers: Sequence[int], drawn: PairTensors, method: HSNet | TwoPass
    ) -> Batch:
        """Return a batch of episodes from stacked pairs: images (P, 2, 3, S, S) etc."""
        device = next(method.parameters()).device
        first = {number: 2 * row for row, number in enumerate(numbers)}
        queries = torch.tensor([first[index // 2] + index % 2 for index in indices], device=device)
        supports = torch.tensor([first[index // 2] + 1 - index % 2 for index in indices], device=device)
        images, masks = (one.flatten(0, 1).to(device) for one in (drawn.images, drawn.masks))
        episode_class = torch.as_tensor(drawn.base_index).to(device)[queries // 2]
        with torch.no_grad():
            features = method.features(images)
        query, support = select(features, queries), select(features, supports)
        if self.config.mask_class_logit and query.base_logits is not None:
            query = query._replace(base_logits=mask_class_logit(query.base_logits, episode_class))
        support_mask = (masks[supports] == 1).float()[:, None]
        return Batch(query, Support(support, support_mask), masks[queries], episode_class)


class _Pairs(data.Dataset[PairTensors]):
    """Pairs by number, for DataLoader workers."""

    def __init__(self, episodes: ViewEpisodes, size: int) -> None:
        self.episodes, self.size = episodes, size

    def __getitem__(self, number: int) -> PairTensors:
        return self.episodes.pair(number, self.size)


def _base_images(config: TrainConfig, dataset: Dataset) -> ImagePool:
    """Return the images of the fold's base classes; the recipe may ignore pixels of excluded classes."""
    exclude_holdout = config.select_on == "base"
    excluded = excluded_classes(config.data, config.fold, exclude_holdout=exclude_holdout)
    fold = present(train_fold(config.data, config.fold, exclude_holdout=exclude_holdout), dataset)
    fold = drop_excluded(fold, dataset, excluded, config.novel_pixels).large_enough(1)
    if not fold.queries:
        raise DataError(f"No class has enough images to train on: {needed_images(1)}. Check --root.")
    ignored = excluded if config.novel_pixels == "ignore" else ()
    return ImagePool(dataset, fold, ignored, keep_unknown=config.unknown_pixels == "ignore")


def _without(dataset: Folder, names: Collection[str]) -> ImagePool:
    """Return a folder's images, with the classes of some names excluded."""
    fold = dataset.fold()
    excluded = [c for c in fold.images if fold.class_names[c].casefold() in names]
    usable = fold.only(set(fold.images) - set(excluded)).large_enough(1)
    return ImagePool(dataset, usable, excluded)
