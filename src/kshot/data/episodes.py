"""Episodes as tensors, for a DataLoader."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kshot.data.base import Dataset
from kshot.data.sampling import Episode
from kshot.io.images import read_image
from kshot.transforms import Resize


class EpisodeImages:
    """Episodes of a benchmark, and their images and masks at the network's size S."""

    def __init__(self, dataset: Dataset, episodes: Sequence[Episode], transform: Resize) -> None:
        self.dataset, self.episodes, self.transform = dataset, episodes, transform

    def __len__(self) -> int:
        return len(self.episodes)

    def image(self, name: str) -> Tensor:
        """Return an image: (1, 3, S, S) in [0, 1]."""
        return self.transform.image(read_image(self.dataset.image_path(name)))

    def support_mask(self, name: str, class_id: int) -> Tensor:
        """Return the mask of a class in a support image: (1, 1, S, S) float, 1 on the object."""
        return self.transform.support_mask(self.dataset.ground_truth(name, class_id))


class EpisodeTensors(NamedTuple):
    """Images and masks of an episode of K shots, at the network's size S.

    query_image: (3, S, S) in [0, 1]. query_mask: (S, S) uint8 of 0, 1 and 255. support_images: (K, 3, S, S).
    support_masks: (K, 1, S, S) float, 1 on the object. class_id: counts from 0 within the benchmark.
    """

    query_image: Tensor
    query_mask: Tensor
    support_images: Tensor
    support_masks: Tensor
    class_id: int


class EpisodeDataset(EpisodeImages, torch.utils.data.Dataset[EpisodeTensors]):
    """The episodes of a manifest, or of any other draw, as a dataset of torch.

    Raises ImageError, MaskError or DataError that names the file that cannot be read.
    """

    def __getitem__(self, index: int) -> EpisodeTensors:
        class_id, query, supports = self.episodes[index]
        query_mask = self.transform.mask(self.dataset.ground_truth(query, class_id))
        return EpisodeTensors(
            self.image(query)[0],
            torch.from_numpy(query_mask),
            torch.cat([self.image(name) for name in supports]),
            torch.cat([self.support_mask(name, class_id) for name in supports]),
            class_id,
        )
