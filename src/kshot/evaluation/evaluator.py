"""Run a model on the episodes of manifests, and count pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kshot.data.base import Dataset
from kshot.data.episodes import EpisodeImages
from kshot.data.loading import read_ahead as read_in_order
from kshot.data.manifest import Manifest
from kshot.data.sampling import Episode
from kshot.errors import DataError
from kshot.evaluation.metrics import Counts, IntArray, count_pixels
from kshot.methods.episode import EpisodeRunner
from kshot.models.feature_cache import CACHE_GB, Budget, FeatureCache, MemoryStorage
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import GroundTruth, Support


@dataclass(frozen=True, eq=False)
class ManifestCounts:
    """The pixel counts of one manifest. counts: (N, 4), in the manifest's order and that of `Counts`.

    num_images: of the manifest. num_computed: number of features computed for its episodes; the others were
    computed for a manifest that ran with it. num_empty_supports: support images whose object vanishes at the
    network's size.
    """

    counts: IntArray
    num_images: int
    num_computed: int
    num_empty_supports: int


class FeatureKey(NamedTuple):
    """Identity of stored features. is_query: they are a query's, which also serve a support image."""

    name: str
    is_query: bool


class EpisodeFiles(NamedTuple):
    """What is read from disk for one episode. images: those that no earlier episode has read.

    episode: index among the reader's episodes.
    """

    episode: int
    images: dict[str, Tensor]
    ground_truth: GroundTruth
    support_masks: tuple[Tensor, ...]


class EpisodeReader(EpisodeImages, torch.utils.data.Dataset[EpisodeFiles]):
    """Reads each image of some episodes once, in an order that workers cannot change.

    Episodes come class by class, so that only the features of one class have to be kept at a time.
    """

    def __init__(self, dataset: Dataset, episodes: Sequence[Episode], transform: Resize) -> None:
        super().__init__(dataset, episodes, transform)
        self.order = sorted(range(len(episodes)), key=lambda index: episodes[index].class_id)
        seen: set[str] = set()
        self.first_read: list[list[str]] = []
        for index in self.order:
            new = [n for n in dict.fromkeys(episodes[index].image_names) if n not in seen]
            seen.update(new)
            self.first_read.append(new)

    def __getitem__(self, position: int) -> EpisodeFiles:
        index = self.order[position]
        class_id, query, supports = self.episodes[index]
        masks = {name: self.support_mask(name, class_id) for name in supports}
        return EpisodeFiles(
            index,
            {name: self.image(name) for name in self.first_read[position]},
            self.dataset.ground_truth(query, class_id),
            tuple(masks[name] for name in supports),
        )

    def places(self, position: int) -> str:
        """Return the paths of an episode's images, for messages."""
        names = self.episodes[self.order[position]].image_names
        return ", ".join(str(self.dataset.image_path(name)) for name in names)


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    manifests: Sequence[Manifest],
    transform: Resize,
    *,
    at_original_size: bool,
    num_workers: int = 0,
    cache_gb: float = CACHE_GB,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ManifestCounts]:
    """Segment the query of each episode with its support images, and count pixels against the ground truth.

    Features of an image are computed once for all manifests, if they fit into `cache_gb` GiB. Images that are
    only supports in a manifest are encoded as such, which costs less. Counts of a manifest do not depend on
    the others.
    Raises DataError if images are missing, ImageError or MaskError for a file that cannot be read.
    """
    for manifest in manifests:
        check_files(dataset, manifest)
    episodes = tuple(episode for manifest in manifests for episode in manifest.episodes)
    owner = np.repeat(np.arange(len(manifests)), [len(manifest.episodes) for manifest in manifests])
    reader = EpisodeReader(dataset, episodes, transform)
    runner = segmenter.runner._replace(transform=transform)
    fresh: dict[str, Tensor] = {}
    queries = [{episode.query for episode in manifest.episodes} for manifest in manifests]

    def compute(key: FeatureKey) -> Any:
        image = fresh.pop(key.name, None)
        return runner.features(reader.image(key.name) if image is None else image, as_query=key.is_query)

    def key_of(name: str, episode: int) -> FeatureKey:
        return FeatureKey(name, name in queries[owner[episode]])

    uses = (key_of(name, index) for index, episode in enumerate(episodes) for name in episode.image_names)
    cache = FeatureCache(compute, MemoryStorage(uses, Budget(int(cache_gb * 2**30))))
    counts = np.zeros((len(episodes), len(Counts._fields)), dtype=np.int64)
    num_computed, num_empty = np.zeros((2, len(manifests)), dtype=np.int64)
    for done, files in enumerate(read_ahead(reader, num_workers)):
        fresh.update(files.images)
        episode, computed_before = episodes[files.episode], cache.num_computed
        query = cache.get(key_of(episode.query, files.episode))
        supports = [
            Support(cache.get(key_of(name, files.episode)), mask.to(segmenter.device))
            for name, mask in zip(episode.supports, files.support_masks, strict=True)
        ]
        counts[files.episode] = _segment_and_count(
            runner, query, supports, files.ground_truth, at_original_size
        )
        num_computed[owner[files.episode]] += cache.num_computed - computed_before
        num_empty[owner[files.episode]] += sum(not mask.any() for mask in files.support_masks)
        on_progress(done + 1, len(episodes))
    return [
        ManifestCounts(
            counts[owner == index],
            len({name for episode in manifest.episodes for name in episode.image_names}),
            int(num_computed[index]),
            int(num_empty[index]),
        )
        for index, manifest in enumerate(manifests)
    ]


def check_files(dataset: Dataset, manifest: Manifest) -> None:
    """Raise DataError if a manifest needs images that are missing, or classes that the dataset lacks.

    Reads the first mask, which reveals a broken dataset at once.
    """
    unknown = [c for c, name in manifest.classes.items() if dataset.class_names[c : c + 1] != (name,)]
    if unknown:
        raise DataError(
            f"The manifest's class {unknown[0]} is '{manifest.classes[unknown[0]]}', but this dataset's "
            f"is '{(*dataset.class_names, 'missing')[min(unknown[0], len(dataset.class_names))]}'. "
            "Is it the right dataset?"
        )
    names = dict.fromkeys(name for episode in manifest.episodes for name in episode.image_names)
    missing = [name for name in names if not dataset.image_path(name).exists()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images are missing, the first: "
            f"{dataset.image_path(missing[0])}. `kshot data check` lists what is missing; "
            "`kshot episodes --root` draws from what is there."
        )
    # What a dataset loads at its first mask, such as COCO's annotations, is loaded before workers start.
    dataset.ground_truth(manifest.episodes[0].query, manifest.episodes[0].class_id)


def _segment_and_count(
    runner: EpisodeRunner,
    query: Any,
    supports: list[Support],
    ground_truth: GroundTruth,
    at_original_size: bool,
) -> Counts:
    if not at_original_size:
        ground_truth = runner.transform.mask(ground_truth)
    height, width = ground_truth.shape
    return count_pixels(runner.segment(query, supports, (height, width)).mask, ground_truth)


def read_ahead(reader: EpisodeReader, num_workers: int) -> Iterator[EpisodeFiles]:
    """Yield episodes in the reader's order, loaded by `num_workers` processes."""
    return read_in_order(reader, num_workers, reader.places)
