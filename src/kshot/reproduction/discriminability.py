"""Feature discriminability rho_k: how well tap k of a backbone separates an object from its background.

rho_k is the mean cosine similarity of the query's foreground to the support's foreground prototype at tap k,
divided by the same of the query's background (Karimi & Poullis 2024, Fig. 2). The paper's text says cosine
*distance*, with which a higher rho would be worse; with similarity a higher rho is better, as the paper reads
its figure.

Both similarities are averaged over the episodes and divided once. The ratio of a single episode has no bound
if its background's similarity is near 0, and a few such episodes would dominate a mean of ratios.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor
from torch.nn import functional as F

from kshot.data.manifest import Manifest
from kshot.errors import DataError
from kshot.evaluation.evaluator import EpisodeReader
from kshot.evaluation.results import read_record
from kshot.io.provenance import Provenance
from kshot.methods.base import Method
from kshot.models.backbones import STRIDES, Backbone, FeaturePyramid
from kshot.models.feature_cache import CACHE_GB, Budget, FeatureCache, MemoryStorage
from kshot.models.hypercorrelation import NORM_EPS
from kshot.models.imagenet_weights import weights_sha256
from kshot.types import GroundTruth

FloatArray = NDArray[np.float64]

RegionMeans = tuple[Tensor, ...]
"""Means of one image and class, (3, C) for each tap: the foreground's mean feature, then the mean unit
feature of foreground and background. A region without pixels is NaN."""


class Discriminability(BaseModel):
    """rho_k of one backbone. The four lists have one entry per tap, from shallow to deep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    backbone: str
    """timm's name of the network."""
    weights_sha256: str
    """Digest of its weights."""
    label: str
    """Name in figures, for instance "B_sem ResNet-50"."""
    taps: list[tuple[int, str]]
    """Stride of the stage in pixels, and the tapped module."""
    foreground: list[float]
    """Mean cosine similarity in [-1, 1] of the query's foreground to the prototype."""
    background: list[float]
    """The same of the query's background."""
    rho: list[float | None]
    """foreground / background; None if the background's similarity is not positive."""
    num_episodes: int
    """Number of averaged episodes."""
    num_left_out: int
    """Number of skipped episodes: at this size, the query or every support image shows no object, or the
    query shows no background."""
    manifest_sha256: str
    image_size: int
    provenance: Provenance

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        lengths = {len(column) for column in (self.taps, self.foreground, self.background, self.rho)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError("taps, foreground, background and rho need one entry for each tap")
        return self


def backbones_of(method: Method) -> dict[Literal["cls", "sem"], Backbone]:
    """Return the backbones that a method has: B_cls under "cls", B_sem under "sem"."""
    cls, sem = method.backbones
    found: dict[Literal["cls", "sem"], Backbone | None] = {"cls": cls, "sem": sem}
    return {name: backbone for name, backbone in found.items() if backbone is not None}


@torch.inference_mode()
def measure_similarities(
    backbone: Callable[[Tensor], FeaturePyramid],
    reader: EpisodeReader,
    device: torch.device,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[FloatArray, FloatArray]:
    """Return the cosine similarities of each query's foreground and background to its support prototype.

    Two arrays (N, L) for N episodes in the manifest's order and L taps. The prototype is the mean of the
    support images' prototypes. Each position is weighted by the share of its cell that the region covers;
    pixels without ground truth (255) belong to neither region. Rows of episodes that cannot be measured are
    NaN. Raises ImageError or MaskError for an unreadable file; `evaluator.check_files` finds missing ones.
    """
    classes_of = _classes_by_image(reader)
    cache = _region_cache(backbone, reader, device, classes_of)
    similarities: dict[int, FloatArray] = {}
    for done, index in enumerate(reader.order):
        episode = reader.episodes[index]
        query, *supports = (
            cache.get(name)[classes_of[name].index(episode.class_id)] for name in episode.image_names
        )
        similarities[index] = _compare(query, supports)
        on_progress(done + 1)
    foreground, background = np.stack([similarities[index] for index in range(len(reader))], axis=1)
    return foreground, background


def _classes_by_image(reader: EpisodeReader) -> dict[str, list[int]]:
    classes: dict[str, list[int]] = {}
    for episode in reader.episodes:
        for name in episode.image_names:
            if episode.class_id not in classes.setdefault(name, []):
                classes[name].append(episode.class_id)
    return classes


def _region_cache(
    backbone: Callable[[Tensor], FeaturePyramid],
    reader: EpisodeReader,
    device: torch.device,
    classes_of: dict[str, list[int]],
) -> FeatureCache[str]:
    """Return a cache of each image's region means, one entry per class in `classes_of`.

    Means are enough: the mean cosine similarity to a prototype is the dot product of the unit prototype and
    the mean unit feature. The features themselves are not kept.
    """

    def compute(name: str) -> tuple[RegionMeans, ...]:
        pyramid = backbone(reader.image(name).to(device))
        ground_truths = (
            reader.transform.mask(reader.dataset.ground_truth(name, c)) for c in classes_of[name]
        )
        return tuple(average_regions(pyramid, ground_truth) for ground_truth in ground_truths)

    uses = (name for episode in reader.episodes for name in episode.image_names)
    return FeatureCache(compute, MemoryStorage(uses, Budget(int(CACHE_GB * 2**30))))


def average_regions(pyramid: FeaturePyramid, ground_truth: GroundTruth) -> RegionMeans:
    """Average features (1, C, h, w) over the foreground and background of a ground truth (H, W)."""
    masks = torch.from_numpy(np.stack([ground_truth == 1, ground_truth == 0])).float()[None]
    return tuple(_average_tap(tap[0], masks) for stage in pyramid.stages for tap in stage)


def _average_tap(features: Tensor, masks: Tensor) -> Tensor:
    """Average features (C, h, w) over masks (1, 2, H, W): (3, C)."""
    shares = F.interpolate(masks, features.shape[-2:], mode="area")[0]
    shares = (shares / shares.sum(dim=(-2, -1), keepdim=True)).to(features.device)  # 0 / 0: NaN
    unit = features / (features.norm(dim=0, keepdim=True) + NORM_EPS)
    prototype = torch.einsum("hw,chw->c", shares[0], features)
    return torch.cat([prototype[None], torch.einsum("rhw,chw->rc", shares, unit)])


def _compare(query: RegionMeans, supports: list[RegionMeans]) -> FloatArray:
    """Return the cosine similarities of a query's foreground and background to the prototype: (2, L)."""
    columns = []
    for query_tap, *support_taps in zip(query, *supports, strict=True):
        # A support image without object at the network's size is NaN and does not count.
        prototype = torch.stack([tap[0] for tap in support_taps]).nanmean(dim=0)
        columns.append(query_tap[1:] @ (prototype / (prototype.norm() + NORM_EPS)))
    return torch.stack(columns, dim=1).double().cpu().numpy()


def make_discriminability(
    backbone: Backbone,
    label: str,
    foreground: FloatArray,
    background: FloatArray,
    manifest: Manifest,
    image_size: int,
    provenance: Provenance,
) -> Discriminability:
    """Average what `measure_similarities` returned. Raises DataError if no episode could be measured."""
    measured = np.asarray(np.isfinite(foreground + background).all(axis=1))
    if not measured.any():
        raise DataError(
            f"None of the {len(measured)} episodes shows an object in both query and support at an image "
            f"size of {image_size} pixels. Raise the image size, or check the masks."
        )
    means = foreground[measured].mean(axis=0), background[measured].mean(axis=0)
    return Discriminability(
        backbone=backbone.name,
        weights_sha256=weights_sha256(backbone),
        label=label,
        taps=[(s, tap.module) for s, stage in zip(STRIDES, backbone.taps, strict=True) for tap in stage],
        foreground=means[0].tolist(),
        background=means[1].tolist(),
        rho=[float(above / below) if below > 0 else None for above, below in zip(*means, strict=True)],
        num_episodes=int(measured.sum()),
        num_left_out=int((~measured).sum()),
        manifest_sha256=manifest.sha256,
        image_size=image_size,
        provenance=provenance,
    )


def read_discriminability(path: Path) -> Discriminability:
    """Read a file of `kshot figure discriminability --json`. Raises DataError if it is broken."""
    return read_record(path, Discriminability, "kshot figure discriminability")
