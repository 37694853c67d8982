"""From a manifest's episodes to the rows of a figure: segment them, and keep the steps."""

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
from kshot.reproduction.panels import PanelRow, PassesRow
from kshot.results import SegmentationResult
from kshot.segmenter import Segmenter
from kshot.transforms import Resize
from kshot.types import GroundTruth


class Opened(NamedTuple):
    """An episode's files: upright photographs, and the ground truth of its class in each; supports first."""

    query: Image.Image
    ground_truth: GroundTruth
    supports: list[tuple[Image.Image, GroundTruth]]


def pick(manifest: Manifest, indices: Sequence[int]) -> list[Episode]:
    """Give some of a manifest's episodes. Raises DataError for a number that it does not have."""
    for index in indices:
        if not 0 <= index < len(manifest.episodes):
            last = len(manifest.episodes) - 1
            raise DataError(f"There is no episode {index}; the manifest has 0 to {last}.")
    return [manifest.episodes[index] for index in indices]


def open_episode(dataset: Dataset, episode: Episode) -> Opened:
    """Read an episode's photographs and ground truths."""

    def read(name: str) -> tuple[Image.Image, GroundTruth]:
        return read_image(dataset.image_path(name)), dataset.ground_truth(name, episode.class_id)

    return Opened(*read(episode.query), [read(name) for name in episode.supports])


def passes_row(segmenter: Segmenter, opened: Opened, transform: Resize, name: str) -> PassesRow:
    """Segment an episode with a two-pass model. Raises DataError for a model that has no second pass."""
    answer = _segment(segmenter, opened, transform)
    if answer.first_pass is None or answer.second_pass is None:
        raise DataError(f"Method {segmenter.config.method} has no two passes to draw. Give a two-pass model.")
    passes = answer.first_pass, answer.second_pass
    return PassesRow(*_first_support(opened), opened.query, opened.ground_truth, *passes, answer.mask, name)


def panel_row(
    segmenters: Sequence[Segmenter], opened: Opened, transforms: Sequence[Resize], name: str
) -> PanelRow:
    """Segment an episode with several models."""
    predictions = [
        _segment(segmenter, opened, transform).mask
        for segmenter, transform in zip(segmenters, transforms, strict=True)
    ]
    return PanelRow(*_first_support(opened), opened.query, opened.ground_truth, predictions, name)


@torch.inference_mode()
def correlation_row(
    backbone: Backbone, opened: Opened, transform: Resize, device: torch.device, taps_per_stage: int = 1
) -> list[DepthMap]:
    """Correlate an episode's query with its first support, by one backbone."""
    (picture, ground_truth), *_ = opened.supports
    query, support = (
        normalize_features(backbone(transform.image(one).to(device))) for one in (opened.query, picture)
    )
    height, width = opened.ground_truth.shape
    maps = depth_maps(
        query,
        support,
        transform.support_mask(ground_truth).to(device),
        transform.output_size(height, width),
        taps_per_stage=taps_per_stage,
    )
    return [one._replace(values=one.values[:height, :width]) for one in maps]


def _segment(segmenter: Segmenter, opened: Opened, transform: Resize) -> SegmentationResult:
    runner = EpisodeRunner(segmenter.method, transform, segmenter.device)
    supports = [runner.encode_support(picture, ground_truth) for picture, ground_truth in opened.supports]
    query = runner.encode_query(opened.query)
    height, width = opened.ground_truth.shape
    return runner.segment(query, supports, (height, width))


def _first_support(opened: Opened) -> tuple[Image.Image, NDArray[np.bool_]]:
    (picture, ground_truth), *_ = opened.supports
    return picture, ground_truth == 1
