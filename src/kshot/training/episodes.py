"""Batches of episodes to train on: names are drawn by seed and number, features come from the cache.

Images are shown as they are; `view_episodes` shows them changed, and other kinds of episodes too.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kshot.data.base import Dataset
from kshot.data.base_classes import present, train_fold, unseen_classes, without_unseen
from kshot.data.sampling import Episode, needed_images, training_episode
from kshot.errors import DataError
from kshot.io.images import read_image
from kshot.methods.hsnet import BackboneFeatures, HSNet
from kshot.models.backbones import Backbone, FeaturePyramid
from kshot.models.base_learner import PSPNet, mask_class_logit, merge_base_logits
from kshot.models.hypercorrelation import normalize_features
from kshot.models.imagenet_weights import weights_sha256
from kshot.training.feature_cache import (
    Budget,
    FeatureCache,
    Features,
    features_to_pyramid,
    pyramid_to_features,
)
from kshot.training.recipes import TrainConfig
from kshot.transforms import Resize
from kshot.types import IGNORE_INDEX, Support

MASKS_KEPT = 4096
"""Truths that stay in memory, at the network's size: some 66 kB each at 257 px."""


class Batch(NamedTuple):
    """A part of a step's episodes: features of queries and supports, and what is to be found.

    query_mask: (B, H, W) long of 0, 1 and 255. episode_class: (B,) each class's place among those of H_cls;
    -1: it is none of them.
    """

    query: BackboneFeatures
    support: Support
    query_mask: Tensor
    episode_class: Tensor


class Stored(NamedTuple):
    """A photograph's features as the cache keeps them, in half precision; None for what is not used.

    learner: number of the base learner that has read it.
    """

    cls: FeaturePyramid | None
    sem: FeaturePyramid | None
    base_logits: Tensor | None
    learner: int = 0


class FeatureReader:
    """Reads both backbones' features of a photograph, from the cache or anew.

    matcher: whose B_cls reads, and which makes features ready to be matched. base_learners: the first is the
    matcher's own; the others read what that one must not, see `TrainingEpisodes`. Empty if it does not match
    with B_sem.
    other_means: of the other base learners' features, taken from them if the matcher is centred.
    """

    def __init__(
        self,
        dataset: Dataset,
        matcher: HSNet,
        base_learners: Sequence[PSPNet],
        size: int,
        budget: Budget,
        device: torch.device,
    ) -> None:
        self.dataset, self.transform, self.device = dataset, Resize(size), device
        self.matcher = matcher
        self.cls = None
        if matcher.cls_backbone is not None:
            key = _key(matcher.cls_backbone, matcher.cls_backbone, size)
            self.cls = FeatureCache(partial(_cls_features, matcher.cls_backbone), key, budget)
        self.sem = [
            FeatureCache(partial(_sem_features, one), _key(one, one.backbone, size), budget)
            for one in base_learners
        ]
        self.other_means: dict[int, Tensor] = {}

    def read(self, name: str, flipped: bool = False, learner: int = 0) -> Stored:
        """Give a photograph's features, those of B_sem by one of the base learners."""
        path = self.dataset.image_path(name)
        cls, sem = (
            None if cache is None else cache.read(path, flipped, lambda: self._image(path))
            for cache in (self.cls, self.sem[learner] if self.sem else None)
        )
        return Stored(
            None if cls is None else features_to_pyramid(cls),
            None if sem is None else features_to_pyramid(sem),
            None if sem is None else sem["base_logits"],
            learner,
        )

    def read_one(self, name: str) -> BackboneFeatures:
        """Give a photograph's features as a batch of one, ready for a method."""
        return self.join([self.read(name)])

    def read_pyramid(self, name: str) -> FeaturePyramid | None:
        """Give what B_cls reads in a photograph as a batch of one, as it is; None without B_cls."""
        return self._batch([self.read(name).cls])

    def join(self, photographs: Sequence[Stored]) -> BackboneFeatures:
        """Make photographs' features one batch, ready to be matched, on the device."""
        cls, sem = ([one.cls for one in photographs], [one.sem for one in photographs])
        features = self.matcher.normalize(self._batch(cls), None)
        together = self._batch(sem)
        if together is not None:
            features = features._replace(sem=normalize_features(together, self._means(photographs)))
        logits = [one.base_logits for one in photographs if one.base_logits is not None]
        if len(self.sem) > 1:
            logits = [merge_base_logits(one.float()) for one in logits]
        return features._replace(base_logits=self._together(logits) if logits else None)

    def _means(self, photographs: Sequence[Stored]) -> Tensor | None:
        own = self.matcher.sem_means
        if own is None:
            return None
        return torch.stack([self.other_means[one.learner] if one.learner else own for one in photographs])

    def _batch(self, pyramids: Sequence[FeaturePyramid | None]) -> FeaturePyramid | None:
        found = [pyramid.stages for pyramid in pyramids if pyramid is not None]
        if not found:
            return None
        stages = (
            tuple(self._together(taps) for taps in zip(*stage, strict=True))
            for stage in zip(*found, strict=True)
        )
        return FeaturePyramid(tuple(stages), None)

    def _together(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.to(self.device).float() for tensor in tensors])

    def _image(self, path: Path) -> Tensor:
        return self.transform.image(read_image(path)).to(self.device)


class TrainingEpisodes:
    """All episodes of a training, by number.

    base_classes: what each base learner knows. If there are several, an episode is read by the first that
    does not know its class: to its features the class is as new as the test's will be (cross-fitting).
    Raises DataError if there are no photographs, or if all of several base learners know a class.
    """

    def __init__(
        self, config: TrainConfig, dataset: Dataset, base_classes: Sequence[tuple[str, ...]] = ()
    ) -> None:
        self.config, self.dataset = config, dataset
        hold_out = config.select_on == "base"
        self.unseen = unseen_classes(config.data, config.fold, hold_out=hold_out)
        fold = train_fold(config.data, config.fold, hold_out=hold_out)
        fold = without_unseen(present(fold, dataset), dataset, self.unseen, config.novel_pixels)
        self.fold = fold.large_enough(1)
        if not self.fold.queries:
            raise DataError(f"No class has enough photographs to train on: {needed_images(1)}. Check --root.")
        self.photographs = sorted({name for names in self.fold.images.values() for name in names})
        places = {name: index for index, name in enumerate(base_classes[0])} if len(base_classes) == 1 else {}
        self.places = {c: places.get(fold.class_names[c], -1) for c in self.fold.images}
        self.learners = {c: _first_without(fold.class_names[c], base_classes) for c in self.fold.images}

    def episode(self, index: int) -> tuple[Episode, tuple[bool, bool]]:
        """Name an episode, and say whether its query and its support are mirrored."""
        config = self.config
        episode = training_episode(self.fold, 1, config.seed, index, config.class_cap)
        coins = np.random.default_rng((config.seed, index)).random(2) < 0.5
        return episode, (config.flip and bool(coins[0]), config.flip and bool(coins[1]))

    def names(self, indices: Sequence[int]) -> list[dict[str, str]]:
        """Name what episodes show, for a reader."""
        found = [self.episode(index)[0] for index in indices]
        return [
            {"class": self.fold.class_names[one.class_id], "query": one.query, "support": one.supports[0]}
            for one in found
        ]

    def read(self, indices: Sequence[int], reader: FeatureReader) -> Batch:
        """Read episodes into one batch, on the reader's device."""
        queries, supports, support_masks, query_masks, places = [], [], [], [], []
        for index in indices:
            (class_id, query, (support,)), (query_flipped, support_flipped) = self.episode(index)
            learner = self.learners[class_id]
            queries.append(reader.read(query, query_flipped, learner))
            supports.append(reader.read(support, support_flipped, learner))
            query_masks.append(_flip(self._query_mask(query, class_id, reader.transform), query_flipped))
            ground_truth = _flip(self._truth(support, class_id, reader.transform), support_flipped)
            support_masks.append((ground_truth == 1).float()[None])
            places.append(self.places[class_id])
        to = partial(torch.Tensor.to, device=reader.device)
        query_features = reader.join(queries)
        if self.config.unlearn_own and query_features.base_logits is not None:
            query_features = query_features._replace(
                base_logits=mask_class_logit(query_features.base_logits, to(torch.tensor(places)))
            )
        return Batch(
            query_features,
            Support(reader.join(supports), to(torch.stack(support_masks))),
            to(torch.stack(query_masks).long()),
            to(torch.tensor(places)),
        )

    @lru_cache(maxsize=MASKS_KEPT)  # noqa: B019  one object a run
    def _truth(self, name: str, class_id: int, transform: Resize) -> Tensor:
        return torch.from_numpy(transform.mask(self.dataset.ground_truth(name, class_id)))

    @lru_cache(maxsize=MASKS_KEPT)  # noqa: B019
    def _query_mask(self, name: str, class_id: int, transform: Resize) -> Tensor:
        """Read what is to be found, with unknown and novel pixels treated as the recipe says."""
        ground_truth = self.dataset.ground_truth(name, class_id).copy()
        if self.config.unknown_pixels == "background":
            ground_truth[ground_truth == IGNORE_INDEX] = 0
        if self.config.novel_pixels == "ignore":
            for unseen in set(self.dataset.classes_in(name)) & set(self.unseen):
                ground_truth[self.dataset.ground_truth(name, unseen) == 1] = IGNORE_INDEX
        return torch.from_numpy(transform.mask(ground_truth))


def _first_without(class_name: str, base_classes: Sequence[tuple[str, ...]]) -> int:
    """Choose the base learner that reads a class's episodes."""
    if len(base_classes) < 2:
        return 0
    for number, known in enumerate(base_classes):
        if class_name not in known:
            return number
    raise DataError(
        f"All {len(base_classes)} base learners know {class_name}. Of several, one has to be without it: "
        f"kshot pretrain --leave-out {class_name}."
    )


def _key(weights: nn.Module, backbone: Backbone, size: int) -> str:
    """Name all that features depend on, but for the photograph."""
    return f"{weights_sha256(weights)} {backbone.tap_places} stride {backbone.output_stride} {size} squash"


def _cls_features(backbone: Backbone, image: Tensor) -> Features:
    return pyramid_to_features(backbone(image))


def _sem_features(base_learner: PSPNet, image: Tensor) -> Features:
    pyramid = base_learner.backbone(image)
    return {**pyramid_to_features(pyramid), "base_logits": base_learner.head(pyramid.last)}


def _flip(mask: Tensor, flipped: bool) -> Tensor:
    return mask.flip(-1) if flipped else mask
