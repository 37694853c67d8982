"""Batches of training episodes: names are drawn by seed and number, features come from the cache.

Images are unchanged; `view_episodes` augments them, and has other kinds of episodes too.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kshot.data.base import Dataset
from kshot.data.base_classes import drop_excluded, excluded_classes, present, train_fold
from kshot.data.sampling import Episode, needed_images, training_episode
from kshot.errors import DataError
from kshot.io.images import read_image
from kshot.methods.hsnet import BackboneFeatures, HSNet
from kshot.models.backbones import Backbone, FeaturePyramid
from kshot.models.base_learner import PSPNet, mask_class_logit, merge_base_logits
from kshot.models.feature_cache import FeatureCache
from kshot.models.hypercorrelation import normalize_features
from kshot.models.imagenet_weights import weights_sha256
from kshot.training.feature_files import (
    DiskBudget,
    DiskStorage,
    Features,
    ImageKey,
    features_to_pyramid,
    pyramid_to_features,
)
from kshot.training.recipes import TrainConfig
from kshot.transforms import Resize
from kshot.types import IGNORE_INDEX, Support

NUM_CACHED_MASKS = 4096
"""Masks that stay in memory at the network's size: about 66 kB each at 257 px."""


class Batch(NamedTuple):
    """A part of a step's episodes: features of queries and supports, and the query masks.

    query_mask: (B, H, W) long of 0, 1 and 255. episode_class: (B,) index of each class among those of H_cls;
    -1: none of them.
    """

    query: BackboneFeatures
    support: Support
    query_mask: Tensor
    episode_class: Tensor


class CachedFeatures(NamedTuple):
    """An image's features from the cache, in half precision; None for unused backbones.

    learner: number of the base learner that computed them.
    """

    cls: FeaturePyramid | None
    sem: FeaturePyramid | None
    base_logits: Tensor | None
    learner: int = 0


class CachedEncoder:
    """Encodes images with both frozen backbones, by way of the cache.

    matcher: has B_cls, and normalizes features. base_learners: the first is the matcher's own; the others
    encode images of classes that the first was trained on, see `TrainingEpisodes`. Empty if the matcher does
    not use B_sem.
    other_means: mean features of the other base learners, if the matcher centers features.
    """

    def __init__(
        self,
        dataset: Dataset,
        matcher: HSNet,
        base_learners: Sequence[PSPNet],
        size: int,
        budget: DiskBudget,
        device: torch.device,
    ) -> None:
        self.dataset, self.transform, self.device = dataset, Resize(size), device
        self.matcher = matcher
        self.cls = None
        if matcher.cls_backbone is not None:
            settings = _settings(matcher.cls_backbone, matcher.cls_backbone, size)
            compute = partial(_cls_features, matcher.cls_backbone)
            self.cls = self._cache(compute, DiskStorage(settings, budget))
        self.sem = [
            self._cache(partial(_sem_features, one), DiskStorage(_settings(one, one.backbone, size), budget))
            for one in base_learners
        ]
        self.other_means: dict[int, Tensor] = {}

    def encode(self, name: str, flipped: bool = False, learner: int = 0) -> CachedFeatures:
        """Return an image's features, those of B_sem from one of the base learners."""
        key = ImageKey(self.dataset.image_path(name), flipped)
        cls, sem = (
            None if cache is None else cache.get(key)
            for cache in (self.cls, self.sem[learner] if self.sem else None)
        )
        return CachedFeatures(
            None if cls is None else features_to_pyramid(cls),
            None if sem is None else features_to_pyramid(sem),
            None if sem is None else sem["base_logits"],
            learner,
        )

    def encode_one(self, name: str) -> BackboneFeatures:
        """Return an image's normalized features as a batch of one."""
        return self.join([self.encode(name)])

    def encode_cls(self, name: str) -> FeaturePyramid | None:
        """Return B_cls's features of an image as a batch of one, not normalized; None without B_cls."""
        return self._batch([self.encode(name).cls])

    def join(self, images: Sequence[CachedFeatures]) -> BackboneFeatures:
        """Return the normalized features of several images as one batch on the device."""
        features = self.matcher.normalize(self._batch([one.cls for one in images]), None)
        sem = self._batch([one.sem for one in images])
        if sem is not None:
            features = features._replace(sem=normalize_features(sem, self._means(images)))
        logits = [one.base_logits for one in images if one.base_logits is not None]
        if len(self.sem) > 1:
            logits = [merge_base_logits(one.float()) for one in logits]
        return features._replace(base_logits=self._cat(logits) if logits else None)

    def _means(self, images: Sequence[CachedFeatures]) -> Tensor | None:
        own = self.matcher.sem_means
        if own is None:
            return None
        return torch.stack([self.other_means[one.learner] if one.learner else own for one in images])

    def _batch(self, pyramids: Sequence[FeaturePyramid | None]) -> FeaturePyramid | None:
        found = [pyramid.stages for pyramid in pyramids if pyramid is not None]
        if not found:
            return None
        stages = (
            tuple(self._cat(taps) for taps in zip(*stage, strict=True)) for stage in zip(*found, strict=True)
        )
        return FeaturePyramid(tuple(stages), None)

    def _cat(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.to(self.device).float() for tensor in tensors])

    def _cache(self, extract: Callable[[Tensor], Features], storage: DiskStorage) -> FeatureCache[ImageKey]:
        def compute(key: ImageKey) -> Features:
            image = self.transform.image(read_image(key.path)).to(self.device)
            with torch.no_grad():
                return extract(image.flip(-1) if key.flipped else image)

        return FeatureCache(compute, storage)


class TrainingEpisodes:
    """All episodes of a training, by number.

    base_classes: the classes of each base learner. With several, each episode uses features of the first one
    that was not trained on its class (cross-fitting), so the class is as new to them as at test time.
    Raises DataError if there are no images, or if each of several base learners was trained on a class.
    """

    def __init__(
        self, config: TrainConfig, dataset: Dataset, base_classes: Sequence[tuple[str, ...]] = ()
    ) -> None:
        self.config, self.dataset = config, dataset
        exclude_holdout = config.select_on == "base"
        self.excluded = excluded_classes(config.data, config.fold, exclude_holdout=exclude_holdout)
        fold = train_fold(config.data, config.fold, exclude_holdout=exclude_holdout)
        fold = drop_excluded(present(fold, dataset), dataset, self.excluded, config.novel_pixels)
        self.fold = fold.large_enough(1)
        if not self.fold.queries:
            raise DataError(f"No class has enough images to train on: {needed_images(1)}. Check --root.")
        self.image_names = sorted({name for names in self.fold.images.values() for name in names})
        names = base_classes[0] if len(base_classes) == 1 else ()
        indices = {name: index for index, name in enumerate(names)}
        self.base_indices = {c: indices.get(fold.class_names[c], -1) for c in self.fold.images}
        self.learners = {c: _first_without(fold.class_names[c], base_classes) for c in self.fold.images}

    def episode(self, index: int) -> tuple[Episode, tuple[bool, bool]]:
        """Return an episode, and whether its query and its support are mirrored."""
        config = self.config
        episode = training_episode(self.fold, 1, config.seed, index, config.class_cap)
        coins = np.random.default_rng((config.seed, index)).random(2) < 0.5
        return episode, (config.flip and bool(coins[0]), config.flip and bool(coins[1]))

    def names(self, indices: Sequence[int]) -> list[dict[str, str]]:
        """Return the class and images of episodes, for logs."""
        episodes = [self.episode(index)[0] for index in indices]
        return [
            {"class": self.fold.class_names[one.class_id], "query": one.query, "support": one.supports[0]}
            for one in episodes
        ]

    def load(self, indices: Sequence[int], encoder: CachedEncoder) -> Batch:
        """Return episodes as one batch, on the encoder's device."""
        queries, supports, support_masks, query_masks, base_indices = [], [], [], [], []
        for index in indices:
            (class_id, query, (support,)), (query_flipped, support_flipped) = self.episode(index)
            learner = self.learners[class_id]
            queries.append(encoder.encode(query, query_flipped, learner))
            supports.append(encoder.encode(support, support_flipped, learner))
            query_masks.append(_flip(self._query_mask(query, class_id, encoder.transform), query_flipped))
            ground_truth = _flip(self._ground_truth(support, class_id, encoder.transform), support_flipped)
            support_masks.append((ground_truth == 1).float()[None])
            base_indices.append(self.base_indices[class_id])
        to = partial(torch.Tensor.to, device=encoder.device)
        query_features, episode_class = encoder.join(queries), to(torch.tensor(base_indices))
        if self.config.mask_class_logit and query_features.base_logits is not None:
            query_features = query_features._replace(
                base_logits=mask_class_logit(query_features.base_logits, episode_class)
            )
        return Batch(
            query_features,
            Support(encoder.join(supports), to(torch.stack(support_masks))),
            to(torch.stack(query_masks).long()),
            episode_class,
        )

    @lru_cache(maxsize=NUM_CACHED_MASKS)  # noqa: B019  one object a run
    def _ground_truth(self, name: str, class_id: int, transform: Resize) -> Tensor:
        return torch.from_numpy(transform.mask(self.dataset.ground_truth(name, class_id)))

    @lru_cache(maxsize=NUM_CACHED_MASKS)  # noqa: B019
    def _query_mask(self, name: str, class_id: int, transform: Resize) -> Tensor:
        """Return the query mask, with unknown and novel pixels treated as the recipe says."""
        ground_truth = self.dataset.ground_truth(name, class_id).copy()
        if self.config.unknown_pixels == "background":
            ground_truth[ground_truth == IGNORE_INDEX] = 0
        if self.config.novel_pixels == "ignore":
            for excluded in set(self.dataset.classes_in(name)) & set(self.excluded):
                ground_truth[self.dataset.ground_truth(name, excluded) == 1] = IGNORE_INDEX
        return torch.from_numpy(transform.mask(ground_truth))


def _first_without(class_name: str, base_classes: Sequence[tuple[str, ...]]) -> int:
    """Return the number of the base learner for a class's episodes."""
    if len(base_classes) < 2:
        return 0
    for number, names in enumerate(base_classes):
        if class_name not in names:
            return number
    raise DataError(
        f"All {len(base_classes)} base learners were trained on {class_name}. At least one of several must "
        f"exclude it: kshot pretrain --set excluded_classes={class_name}."
    )


def _settings(weights: nn.Module, backbone: Backbone, size: int) -> str:
    """Return a text with everything that features depend on except the image."""
    return f"{weights_sha256(weights)} stride {backbone.output_stride} {size} squash"


def _cls_features(backbone: Backbone, image: Tensor) -> Features:
    return pyramid_to_features(backbone(image))


def _sem_features(base_learner: PSPNet, image: Tensor) -> Features:
    pyramid = base_learner.backbone(image)
    return {**pyramid_to_features(pyramid), "base_logits": base_learner.head(pyramid.last)}


def _flip(mask: Tensor, flipped: bool) -> Tensor:
    return mask.flip(-1) if flipped else mask
