"""Load a manifest's episodes, segment them and return the rows of a figure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kshot.data.base import Dataset
from kshot.data.manifest import Manifest
from kshot.data.sampling import Episode
from kshot.errors import DataError
from kshot.io.images import read_image
from kshot.methods.episode import EpisodeRunner
from kshot.models.backbones import Backbone
from kshot.models.hypercorrelation import normalize_features
from kshot.reproduction.correlations import DepthMap, depth_maps
from kshot.reproduction.image_figures import ComparisonRow, PassesRow
from kshot.results import SegmentationResult
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import GroundTruth


class LoadedEpisode(NamedTuple):
    """An episode's images, with the ground truth of its class for each."""

    query: Image.Image
    ground_truth: GroundTruth
    supports: list[tuple[Image.Image, GroundTruth]]


def select_episodes(manifest: Manifest, indices: Sequence[int]) -> list[Episode]:
    """Return the episodes with these numbers. Raises DataError for a number that does not exist."""
    for index in indices:
        if not 0 <= index < len(manifest.episodes):
            last = len(manifest.episodes) - 1
            raise DataError(f"There is no episode {index}; the manifest has 0 to {last}.")
    return [manifest.episodes[index] for index in indices]


def load_episode(dataset: Dataset, episode: Episode) -> LoadedEpisode:
    """Read an episode's images and ground truths."""

    def read(name: str) -> tuple[Image.Image, GroundTruth]:
        return read_image(dataset.image_path(name)), dataset.ground_truth(name, episode.class_id)

    return LoadedEpisode(*read(episode.query), [read(name) for name in episode.supports])


def passes_row(segmenter: Segmenter, loaded: LoadedEpisode, transform: Resize, name: str) -> PassesRow:
    """Segment an episode with a two-pass model. Raises DataError for a model that has no second pass."""
    result = _segment(segmenter, loaded, transform)
    if result.first_pass is None or result.second_pass is None:
        raise DataError(f"Method {segmenter.config.method} has no two passes to draw. Give a two-pass model.")
    passes = result.first_pass, result.second_pass
    return PassesRow(*_first_support(loaded), loaded.query, loaded.ground_truth, *passes, result.mask, name)


def comparison_row(
    segmenters: Sequence[Segmenter], loaded: LoadedEpisode, transforms: Sequence[Resize], name: str
) -> ComparisonRow:
    """Segment an episode with several models."""
    predictions = [
        _segment(segmenter, loaded, transform).mask
        for segmenter, transform in zip(segmenters, transforms, strict=True)
    ]
    return ComparisonRow(*_first_support(loaded), loaded.query, loaded.ground_truth, predictions, name)


@torch.inference_mode()
def correlation_row(
    backbone: Backbone,
    loaded: LoadedEpisode,
    transform: Resize,
    device: torch.device,
    taps_per_stage: int = 1,
) -> list[DepthMap]:
    """Correlate an episode's query with its first support image, using one backbone."""
    (support_image, ground_truth), *_ = loaded.supports
    query, support = (
        normalize_features(backbone(transform.image(image).to(device)))
        for image in (loaded.query, support_image)
    )
    height, width = loaded.ground_truth.shape
    maps = depth_maps(
        query,
        support,
        transform.support_mask(ground_truth).to(device),
        transform.output_size(height, width),
        taps_per_stage=taps_per_stage,
    )
    return [one._replace(values=one.values[:height, :width]) for one in maps]


def _segment(segmenter: Segmenter, loaded: LoadedEpisode, transform: Resize) -> SegmentationResult:
    runner = EpisodeRunner(segmenter.method, transform, segmenter.device)
    supports = [runner.encode_support(image, ground_truth) for image, ground_truth in loaded.supports]
    height, width = loaded.ground_truth.shape
    return runner.segment(runner.encode_query(loaded.query), supports, (height, width))


def _first_support(loaded: LoadedEpisode) -> tuple[Image.Image, NDArray[np.bool_]]:
    (image, ground_truth), *_ = loaded.supports
    return image, ground_truth == 1
