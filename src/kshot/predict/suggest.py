"""Choose which images to label next: likely positives that, with the labelled images, represent all of them.

In trials on coco-mini and VOC, the common advice to label the least certain or the most different images gave
worse supports than chance.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from kshot.errors import DataError, failure_reason
from kshot.io.images import read_image
from kshot.io.progress import progress
from kshot.methods.prototype import STAGES, prototypes
from kshot.models.backbones import FeaturePyramid
from kshot.segmenter import LabelledImages, Segmenter

CANDIDATES = 4
"""Candidates for each suggestion: the images that most likely show the object."""


class Suggestions(BaseModel):
    """The result of `suggest`.

    label_next: images to label, the most useful first. confidence: of each image's result, 0 to 1, lowest
    first; see `SegmentationResult.confidence`. failures: images that cannot be read, and why.
    """

    model_config = ConfigDict(frozen=True)

    label_next: list[Path]
    confidence: dict[Path, float]
    failures: dict[Path, str]


class ImagePrototypes(NamedTuple):
    """Prototypes of an image's background and object.

    stages: for each of STAGES the mean features (2, C) of background and object, of unit length.
    """

    stages: tuple[Tensor, ...]

    @classmethod
    def mean(cls, several: Sequence[Self]) -> "ImagePrototypes":
        """Return the mean of several images' prototypes, normalized again."""
        by_stage = zip(*(one.stages for one in several), strict=True)
        return cls(tuple(F.normalize(torch.stack(stages).mean(dim=0), dim=-1) for stages in by_stage))

    def cosine_similarity(self, other: "ImagePrototypes") -> float:
        """Return the cosine similarity of two objects, -1 to 1; the mean over stages."""
        pairs = zip(self.stages, other.stages, strict=True)
        return float(np.mean([float(own[1] @ others[1]) for own, others in pairs]))

    def vector(self) -> Tensor:
        """Return all prototypes in one row."""
        return torch.cat([stage.flatten() for stage in self.stages])


class QueryScore(NamedTuple):
    """What is kept of an unlabelled image: the result's confidence, and the prototypes of each class."""

    confidence: float
    prototypes: dict[str, ImagePrototypes]


def suggest(
    segmenter: Segmenter, classes: Mapping[str, LabelledImages], images: Sequence[Path], count: int
) -> Suggestions:
    """Segment unlabelled images with the support set of one or more classes, and choose which to label next.

    segmenter: not fitted. Several classes choose in turn. Images are segmented whole, even large ones.
    Raises DataError for a count below 1, ImageError or MaskError for a support that cannot be used.
    """
    fitted = segmenter.clone()
    fitted.tile = None
    fitted.fit(classes)
    scores, failures = dict[Path, QueryScore](), dict[Path, str]()
    unlabelled = list(dict.fromkeys(images))
    with progress("Segmenting", "images") as on_progress:
        for done, path in enumerate(unlabelled, 1):
            try:
                scores[path] = _score(fitted, read_image(path))
            except Exception as error:  # as in a batch of `kshot segment`
                failures[path] = failure_reason(error)
            on_progress(done, len(unlabelled))
    rankings = []
    for name, supports in fitted.support_set.items():
        labelled = [
            masked_average_pooling(fitted.method.pyramid(shot.features), shot.mask) for shot in supports.shots
        ]
        candidates = [score.prototypes[name] for score in scores.values()]
        rankings.append(choose_images(labelled, candidates, count))
    paths = list(scores)
    by_confidence = sorted(scores, key=lambda path: scores[path].confidence)
    return Suggestions(
        label_next=[paths[index] for index in interleave(rankings, count)],
        confidence={path: scores[path].confidence for path in by_confidence},
        failures=failures,
    )


def _score(fitted: Segmenter, image: Image.Image) -> QueryScore:
    """Segment an image, and pool its features over each class's probability."""
    query = fitted.encode_query(image)
    result = fitted.predict_encoded(query, (image.height, image.width))
    pyramid = fitted.method.pyramid(query)
    by_class = {
        name: masked_average_pooling(pyramid, torch.from_numpy(probability)[None, None].to(fitted.device))
        for name, probability in zip(result.class_names, result.class_probabilities, strict=True)
    }
    return QueryScore(result.confidence, by_class)


def masked_average_pooling(pyramid: FeaturePyramid, mask: Tensor) -> ImagePrototypes:
    """Return the mean features of background and object. mask: (1, 1, H, W), 0 to 1."""
    by_stage = [prototypes(pyramid.stages[stage][-1], mask)[0] for stage in STAGES]
    return ImagePrototypes(tuple(F.normalize(stage, dim=-1).float().cpu() for stage in by_stage))


def choose_images(
    labelled: Sequence[ImagePrototypes], unlabelled: Sequence[ImagePrototypes], count: int
) -> list[int]:
    """Return the indices of `count` unlabelled images to label next, the most useful first.

    The candidates are most similar to the labelled objects. Each choice brings the mean of all labelled
    images closest to the mean of the candidates (herding, Welling 2009, on features instead of samples).
    """
    if count < 1:
        raise DataError(f"The number of suggestions is {count}; it must be at least 1.")
    known = ImagePrototypes.mean(labelled)
    ranked = sorted(range(len(unlabelled)), key=lambda index: -known.cosine_similarity(unlabelled[index]))
    left = ranked[: CANDIDATES * count]
    if not left:
        return []
    target = torch.stack([unlabelled[index].vector() for index in left]).mean(dim=0)
    total, chosen = torch.stack([one.vector() for one in labelled]).sum(dim=0), list[int]()
    while left and len(chosen) < count:
        number = len(labelled) + len(chosen) + 1

        def distance(index: int, total: Tensor = total, number: int = number) -> float:
            return float(((total + unlabelled[index].vector()) / number - target).norm())

        best = min(left, key=distance)
        total = total + unlabelled[best].vector()
        chosen.append(best)
        left.remove(best)
    return chosen


def interleave(rankings: Iterable[Sequence[int]], count: int) -> list[int]:
    """Merge several classes' choices: each class adds one in turn, without repetition."""
    columns = list(rankings)
    depth = max(map(len, columns), default=0)
    turns = [column[row] for row in range(depth) for column in columns if row < len(column)]
    return list(dict.fromkeys(turns))[:count]
