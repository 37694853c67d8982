"""Run a model over a manifest's episodes and count pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kshot.data.base import Dataset
from kshot.data.loading import read_ahead as read_in_order
from kshot.data.manifest import Manifest
from kshot.data.sampling import Episode
from kshot.errors import DataError
from kshot.evaluation.metrics import Counts, IntArray, count_pixels
from kshot.io.images import read_image
from kshot.methods.episode import EpisodeRunner
from kshot.models.feature_cache import CACHE_GB, Budget, FeatureCache, MemoryStorage
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import GroundTruth, Support


@dataclass(frozen=True, eq=False)
class Counted:
    """What one manifest gave. counts: (N, 4), in the manifest's order and that of `Counts`.

    num_images: of the manifest. num_computed: features made for its episodes; a manifest that is run with it
    may have made the others. num_empty_supports: supports whose object is too small to be seen at the
    network's size.
    """

    counts: IntArray
    num_images: int
    num_computed: int
    num_empty_supports: int


class Reading(NamedTuple):
    """How a photograph is read. is_query: it is one somewhere in the manifest; such features serve both."""

    name: str
    is_query: bool


class EpisodeFiles(NamedTuple):
    """What is read from disk for one episode; `images` are those that no earlier episode has read.

    episode: its place among those that are read.
    """

    episode: int
    images: dict[str, Tensor]
    ground_truth: GroundTruth
    support_masks: tuple[Tensor, ...]


class EpisodeReader(torch.utils.data.Dataset[EpisodeFiles]):
    """Reads episodes; the order is fixed before, so that workers can only change how fast it goes.

    Episodes come class by class: a class's images are then all that has to be kept at a time.
    """

    def __init__(self, dataset: Dataset, episodes: tuple[Episode, ...], transform: Resize) -> None:
        self.dataset, self.episodes, self.transform = dataset, episodes, transform
        self.order = sorted(range(len(episodes)), key=lambda index: episodes[index].class_id)
        seen: set[str] = set()
        self.first_read: list[list[str]] = []
        for index in self.order:
            new = [n for n in dict.fromkeys(names_of(episodes[index])) if n not in seen]
            seen.update(new)
            self.first_read.append(new)

    def __len__(self) -> int:
        return len(self.order)

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
        """Say where an episode's photographs are."""
        names = names_of(self.episodes[self.order[position]])
        return ", ".join(str(self.dataset.image_path(name)) for name in names)

    def image(self, name: str) -> Tensor:
        """Read a photograph into the network's square."""
        return self.transform.image(read_image(self.dataset.image_path(name)))

    def support_mask(self, name: str, class_id: int) -> Tensor:
        """Read where a class is in a photograph, in the network's square."""
        return self.transform.support_mask(self.dataset.ground_truth(name, class_id))


def names_of(episode: Episode) -> tuple[str, ...]:
    """Name an episode's images, the query first."""
    return (episode.query, *episode.supports)


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
) -> list[Counted]:
    """Segment every query of manifests with its supports, and count pixels against the ground truth.

    Features are computed once an image, for all manifests together, while they fit into `cache_gb` GiB. What
    a manifest has as a support only is read as one, which costs less; its counts do not depend on the others.
    Raises DataError if photographs are missing, or an ImageError or MaskError for one that cannot be read.
    """
    for manifest in manifests:
        check_files(dataset, manifest)
    episodes = tuple(episode for manifest in manifests for episode in manifest.episodes)
    owner = np.repeat(np.arange(len(manifests)), [len(manifest.episodes) for manifest in manifests])
    reader = EpisodeReader(dataset, episodes, transform)
    runner = segmenter.runner._replace(transform=transform)
    fresh: dict[str, Tensor] = {}
    queries = [{episode.query for episode in manifest.episodes} for manifest in manifests]

    def compute(reading: Reading) -> Any:
        image = fresh.pop(reading.name, None)
        return runner.features(
            reader.image(reading.name) if image is None else image, as_query=reading.is_query
        )

    def reading(name: str, episode: int) -> Reading:
        return Reading(name, name in queries[owner[episode]])

    uses = (reading(name, index) for index, episode in enumerate(episodes) for name in names_of(episode))
    cache = FeatureCache(compute, MemoryStorage(uses, Budget(int(cache_gb * 2**30))))
    counts = np.zeros((len(episodes), len(Counts._fields)), dtype=np.int64)
    num_computed, num_empty = np.zeros((2, len(manifests)), dtype=np.int64)
    for done, files in enumerate(read_ahead(reader, num_workers)):
        fresh.update(files.images)
        episode, computed_before = episodes[files.episode], cache.num_computed
        query = cache.get(reading(episode.query, files.episode))
        supports = [
            Support(cache.get(reading(name, files.episode)), mask.to(segmenter.device))
            for name, mask in zip(episode.supports, files.support_masks, strict=True)
        ]
        counts[files.episode] = _segment_and_count(
            runner, query, supports, files.ground_truth, at_original_size
        )
        num_computed[owner[files.episode]] += cache.num_computed - computed_before
        num_empty[owner[files.episode]] += sum(not mask.any() for mask in files.support_masks)
        on_progress(done + 1, len(episodes))
    return [
        Counted(
            counts[owner == index],
            len({name for episode in manifest.episodes for name in names_of(episode)}),
            int(num_computed[index]),
            int(num_empty[index]),
        )
        for index, manifest in enumerate(manifests)
    ]


def check_files(dataset: Dataset, manifest: Manifest) -> None:
    """Raise DataError if a manifest asks for photographs that are not there, or classes unknown here.

    Reads the first mask, so that a broken dataset shows at once.
    """
    unknown = [c for c, name in manifest.classes.items() if dataset.class_names[c : c + 1] != (name,)]
    if unknown:
        raise DataError(
            f"The manifest's class {unknown[0]} is '{manifest.classes[unknown[0]]}', but this dataset's "
            f"is '{(*dataset.class_names, 'missing')[min(unknown[0], len(dataset.class_names))]}'. "
            "Is it the right dataset?"
        )
    names = dict.fromkeys(name for episode in manifest.episodes for name in names_of(episode))
    missing = [name for name in names if not dataset.image_path(name).exists()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} photographs are missing, the first: "
            f"{dataset.image_path(missing[0])}. `kshot data check` lists what is missing; "
            "`kshot episodes --root` draws from what is there."
        )
    # What a dataset loads at its first mask (COCO's annotations) is then loaded before processes share it.
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
    """Read episodes in the reader's order, with as many processes as one likes."""
    return read_in_order(reader, num_workers, reader.places)
