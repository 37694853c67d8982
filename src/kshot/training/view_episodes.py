"""Episodes of all the kinds that a recipe mixes, in changed views, each drawn by seed and number.

Features are computed at every use: no two views are the same. Episodes 2 n and 2 n + 1 are one pair of images
with their roles exchanged: encoding an image costs as much as matching it, so each is encoded once for two.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from kshot.data.base import Dataset
from kshot.data.base_classes import present, train_fold, unseen_classes, without_unseen
from kshot.data.folder import Folder
from kshot.data.folds import novel_names
from kshot.data.loading import read_ahead
from kshot.data.sampling import needed_images
from kshot.errors import DataError
from kshot.methods.hsnet import HSNet
from kshot.methods.two_pass import TwoPass
from kshot.models.base_learner import mask_class_logit
from kshot.training.augment import to_tensor
from kshot.training.episodes import Batch
from kshot.training.recipes import TrainConfig
from kshot.training.sources import ClassPairs, Drawn, Items, Mixture, Mosaics, Photographs, Regions, Thin
from kshot.types import Support


class PairTensors(NamedTuple):
    """A pair of images, the query of its first episode first.

    images: (2, 3, S, S) in [0, 1]. masks: (2, S, S) long of 0, 1 and 255. place: of its class among the base
    learner's, -1 if it is none of them.
    """

    images: Tensor
    masks: Tensor
    place: int


class ViewEpisodes:
    """All episodes of a training, by number.

    extra: further data sets by name, of whose classes none that is novel in the fold is ever labelled.
    base_classes: what the base learner knows. Raises DataError if there is nothing to draw from.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        extra: Mapping[str, Folder],
        base_classes: Sequence[str] = (),
    ) -> None:
        assert config.mix is not None
        self.config, self.places = config, {name: place for place, name in enumerate(base_classes)}
        main = _base_images(config, dataset)
        others = [_without(one, novel_names(config.data, config.fold)) for one in extra.values()]
        self.photographs = sorted({name for names in main.fold.images.values() for name in names})
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

    def draw(self, index: int, size: int) -> Drawn:
        """Draw an episode by its number, its images `size` pixels square."""
        query, support, class_name = self._pair(index // 2, size)
        return Drawn(support, query, class_name) if index % 2 else Drawn(query, support, class_name)

    def names(self, indices: Sequence[int]) -> list[dict[str, int]]:
        """Name episodes: their numbers say it all."""
        return [{"episode": index} for index in indices]

    def pair(self, number: int, size: int) -> PairTensors:
        """Draw a pair of images by its number."""
        drawn = self._pair(number, size)
        shown = drawn.query, drawn.support
        return PairTensors(
            torch.stack([to_tensor(one.image) for one in shown]),
            torch.from_numpy(np.stack([one.mask for one in shown])).long(),
            self.places.get(drawn.class_name or "", -1),
        )

    def batches(
        self, parts: Iterable[Sequence[int]], size: int, method: HSNet | TwoPass, workers: int = 0
    ) -> Iterator[Batch]:
        """Read batches of episodes, given by their numbers; a method's backbones compute their features."""
        parts = list(parts)
        pairs = [list(dict.fromkeys(index // 2 for index in part)) for part in parts]
        found = read_ahead(_Pairs(self, size), workers, lambda number: f"pair {number}", batches=pairs)
        for part, numbers, drawn in zip(parts, pairs, found, strict=True):
            yield self._batch(part, numbers, PairTensors(*drawn), method)

    def _pair(self, number: int, size: int) -> Drawn:
        return self.source.draw(np.random.default_rng((self.config.seed, number)), size)

    def _batch(
        self, indices: Sequence[int], numbers: Sequence[int], drawn: PairTensors, method: HSNet | TwoPass
    ) -> Batch:
        """Make a batch of pairs: images (P, 2, 3, S, S) and so on."""
        device = next(method.parameters()).device
        first = {number: 2 * place for place, number in enumerate(numbers)}
        queries = torch.tensor([first[index // 2] + index % 2 for index in indices], device=device)
        supports = torch.tensor([first[index // 2] + 1 - index % 2 for index in indices], device=device)
        images, masks = (one.flatten(0, 1).to(device) for one in (drawn.images, drawn.masks))
        places = torch.as_tensor(drawn.place).to(device)[queries // 2]
        with torch.no_grad():
            features = method.features(images)
        query, support = features.pick(queries), features.pick(supports)
        if self.config.unlearn_own and query.base_logits is not None:
            query = query._replace(base_logits=mask_class_logit(query.base_logits, places))
        support_mask = (masks[supports] == 1).float()[:, None]
        return Batch(query, Support(support, support_mask), masks[queries], places)


class _Pairs(data.Dataset[PairTensors]):
    """Pairs by number, for processes that read ahead."""

    def __init__(self, episodes: ViewEpisodes, size: int) -> None:
        self.episodes, self.size = episodes, size

    def __getitem__(self, number: int) -> PairTensors:
        return self.episodes.pair(number, self.size)


def _base_images(config: TrainConfig, dataset: Dataset) -> Photographs:
    """Give the images of the fold's base classes, what must not be seen hidden."""
    hold_out = config.select_on == "base"
    unseen = unseen_classes(config.data, config.fold, hold_out=hold_out)
    fold = present(train_fold(config.data, config.fold, hold_out=hold_out), dataset)
    fold = without_unseen(fold, dataset, unseen, config.novel_pixels).large_enough(1)
    if not fold.queries:
        raise DataError(f"No class has enough images to train on: {needed_images(1)}. Check --root.")
    hidden = unseen if config.novel_pixels == "ignore" else ()
    return Photographs(dataset, fold, hidden, keep_unknown=config.unknown_pixels == "ignore")


def _without(dataset: Folder, names: Collection[str]) -> Photographs:
    """Give a folder's images, the classes of some names hidden."""
    fold = dataset.fold()
    hidden = [c for c in fold.images if fold.class_names[c].casefold() in names]
    usable = fold.only(set(fold.images) - set(hidden)).large_enough(1)
    return Photographs(dataset, usable, hidden)
