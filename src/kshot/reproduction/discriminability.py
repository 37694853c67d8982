"""rho_k, how well each tap of a backbone tells an object from its background (Karimi & Poullis 2024, Fig. 2).

rho_k is how alike the query's foreground and the support's foreground prototype are at tap k, over how alike
the query's background and that prototype are. The paper's text says cosine *distance*; a higher rho would
then be worse. We use cosine similarity, with which a higher rho is better, as the paper reads its figure.

Numerator and denominator are averaged over the episodes first, and divided once: an episode's own ratio has
no bound where its background's similarity is near 0, and a few such episodes would be all that a mean shows.
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
from kshot.evaluation.evaluator import EpisodeReader, names_of
from kshot.evaluation.feature_store import CACHE_GB, FeatureStore
from kshot.evaluation.results import read_record
from kshot.io.provenance import Provenance
from kshot.methods.base import Method
from kshot.models.backbones import STRIDES, Backbone, FeaturePyramid
from kshot.models.hypercorrelation import NORM_EPS
from kshot.models.imagenet_weights import weights_sha256
from kshot.types import GroundTruth

FloatArray = NDArray[np.float64]

Regions = tuple[Tensor, ...]
"""One image and one class, for each tap (3, C): the foreground's mean feature, then the mean unit feature of
the foreground and of the background. A region without pixels is NaN."""


class Power(BaseModel):
    """rho_k of one backbone. The four lists have one entry a tap, from shallow to deep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    backbone: str
    """timm's name of the network."""
    weights_sha256: str
    """Digest of its weights."""
    label: str
    """How a figure names it, for instance "B_sem ResNet-50"."""
    taps: list[tuple[int, str]]
    """Stride of the stage in pixels, and the module that is tapped."""
    foreground: list[float]
    """Mean cosine similarity in [-1, 1] of the query's foreground to the prototype."""
    background: list[float]
    """The same of the query's background."""
    rho: list[float | None]
    """foreground / background; None where the background's is not positive: a ratio then means nothing."""
    num_episodes: int
    """Episodes that were averaged."""
    num_left_out: int
    """Episodes that show no object in the query or in any support, or no background, at this size."""
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
    """Return a method's backbones: B_cls under "cls", B_sem under "sem", those that it has."""
    cls, sem = method.backbones
    found: dict[Literal["cls", "sem"], Backbone | None] = {"cls": cls, "sem": sem}
    return {name: backbone for name, backbone in found.items() if backbone is not None}


@torch.inference_mode()
def measure_power(
    backbone: Callable[[Tensor], FeaturePyramid],
    reader: EpisodeReader,
    device: torch.device,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[FloatArray, FloatArray]:
    """Compare each query with the mean of its supports' prototypes: two arrays (N, L) of cosine similarities.

    N episodes in the manifest's order, L taps; the query's foreground, then its background. Each position
    counts by the share of its cell that the foreground or the background covers; pixels without
    ground truth (255) are in neither. Rows of episodes that cannot be measured are NaN.
    Raises ImageError or MaskError for a file that cannot be read; `evaluate.check_files` finds missing ones.
    """
    classes_of = _classes_by_image(reader)
    store = _region_store(backbone, reader, device, classes_of)
    similarities: dict[int, FloatArray] = {}
    for done, index in enumerate(reader.order):
        episode = reader.episodes[index]
        query, *supports = (
            store.use(name)[classes_of[name].index(episode.class_id)] for name in names_of(episode)
        )
        similarities[index] = _compare(query, supports)
        on_progress(done + 1)
    foreground, background = np.stack([similarities[index] for index in range(len(reader))], axis=1)
    return foreground, background


def _classes_by_image(reader: EpisodeReader) -> dict[str, list[int]]:
    asked: dict[str, dict[int, None]] = {}
    for episode in reader.episodes:
        for name in names_of(episode):
            asked.setdefault(name, {})[episode.class_id] = None
    return {name: list(class_ids) for name, class_ids in asked.items()}


def _region_store(
    backbone: Callable[[Tensor], FeaturePyramid],
    reader: EpisodeReader,
    device: torch.device,
    classes_of: dict[str, list[int]],
) -> FeatureStore[str]:
    """Store an image's regions, class by class in the order of `classes_of`; features themselves aren't kept.

    Means of the regions suffice: the mean of the cosines with a prototype is the dot product of the unit
    prototype and the mean unit feature.
    """

    def compute(name: str) -> tuple[Regions, ...]:
        pyramid = backbone(reader.image(name).to(device))
        ground_truths = (
            reader.transform.mask(reader.dataset.ground_truth(name, c)) for c in classes_of[name]
        )
        return tuple(summarise(pyramid, ground_truth) for ground_truth in ground_truths)

    uses = (name for episode in reader.episodes for name in names_of(episode))
    return FeatureStore(compute, uses, int(CACHE_GB * 2**30))


def summarise(pyramid: FeaturePyramid, ground_truth: GroundTruth) -> Regions:
    """Average one image's features (1, C, h, w) over foreground and background of a ground truth (H, W)."""
    masks = torch.from_numpy(np.stack([ground_truth == 1, ground_truth == 0])).float()[None]
    return tuple(_summarise_tap(tap[0], masks) for stage in pyramid.stages for tap in stage)


def _summarise_tap(features: Tensor, masks: Tensor) -> Tensor:
    """Average features (C, h, w) over masks (1, 2, H, W): (3, C)."""
    shares = F.interpolate(masks, features.shape[-2:], mode="area")[0]
    shares = (shares / shares.sum(dim=(-2, -1), keepdim=True)).to(features.device)  # 0 / 0: NaN
    unit = features / (features.norm(dim=0, keepdim=True) + NORM_EPS)
    prototype = torch.einsum("hw,chw->c", shares[0], features)
    return torch.cat([prototype[None], torch.einsum("rhw,chw->rc", shares, unit)])


def _compare(query: Regions, supports: list[Regions]) -> FloatArray:
    """Give the cosine similarities of a query's foreground and background to the prototype: (2, L)."""
    columns = []
    for query_tap, *support_taps in zip(query, *supports, strict=True):
        # A support whose object vanished at the network's size is NaN, and takes no part.
        prototype = torch.stack([tap[0] for tap in support_taps]).nanmean(dim=0)
        columns.append(query_tap[1:] @ (prototype / (prototype.norm() + NORM_EPS)))
    return torch.stack(columns, dim=1).double().cpu().numpy()


def make_power(
    backbone: Backbone,
    label: str,
    foreground: FloatArray,
    background: FloatArray,
    manifest: Manifest,
    image_size: int,
    provenance: Provenance,
) -> Power:
    """Average what `measure_power` found, and describe it. Raises DataError if that is nothing."""
    measured = np.asarray(np.isfinite(foreground + background).all(axis=1))
    if not measured.any():
        raise DataError(
            f"None of the {len(measured)} episodes shows an object in both query and support at an image "
            f"size of {image_size} pixels. Raise it, or look at the masks."
        )
    means = foreground[measured].mean(axis=0), background[measured].mean(axis=0)
    return Power(
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


def read_power(path: Path) -> Power:
    """Read what `results.write_result` wrote of a Power. Raises DataError that says what is wrong in it."""
    return read_record(path, Power, "kshot power")
