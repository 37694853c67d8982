"""Which photograph to label next.

Those that most likely show the object, and that are together with the labelled ones as mixed as all of those
are. What is often advised, the least certain or the most different ones, makes worse supports than chance
did in trials on coco-mini's and VOC's photographs.
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

from kshot.errors import DataError, ImageError
from kshot.io.images import read_image
from kshot.io.progress import progress
from kshot.methods.prototype import STAGES, prototypes
from kshot.models.backbones import FeaturePyramid
from kshot.segmenter import LabelledImages, Segmenter

CANDIDATES = 4
"""Photographs among which each suggestion is chosen, those likeliest to show the object."""


class Suggestions(BaseModel):
    """What `suggest` found.

    label_next: the photographs to label, the most useful first. confidence: each answer's, 0 to 1, the least
    sure first; see `SegmentationResult.confidence`. failures: photographs that cannot be read, and why.
    """

    model_config = ConfigDict(frozen=True)

    label_next: list[Path]
    confidence: dict[Path, float]
    failures: dict[Path, str]


class Appearance(NamedTuple):
    """What object and background look like in a photograph.

    stages: for each depth the mean features (2, C) of background and object, of unit length.
    """

    stages: tuple[Tensor, ...]

    @classmethod
    def mean(cls, several: Sequence[Self]) -> "Appearance":
        """Average several photographs' appearances."""
        each = zip(*(one.stages for one in several), strict=True)
        return cls(tuple(F.normalize(torch.stack(stages).mean(dim=0), dim=-1) for stages in each))

    def likeness(self, other: "Appearance") -> float:
        """Compare two objects: the mean cosine of their features, -1 to 1."""
        pairs = zip(self.stages, other.stages, strict=True)
        return float(np.mean([float(mine[1] @ theirs[1]) for mine, theirs in pairs]))

    def vector(self) -> Tensor:
        """Give all of it in one row."""
        return torch.cat([stage.flatten() for stage in self.stages])


class Look(NamedTuple):
    """What is kept of an unlabelled photograph: the answer's confidence, and each class's object in it."""

    confidence: float
    appearances: dict[str, Appearance]


def suggest(
    segmenter: Segmenter, classes: Mapping[str, LabelledImages], images: Sequence[Path], count: int
) -> Suggestions:
    """Look at unlabelled images with the supports of one class or several, and choose what to label next.

    segmenter: not fitted. Several classes choose in turn. Images are read whole, also if they are large.
    Raises DataError for a count below 1, ImageError or MaskError for a support that cannot be used.
    """
    fitted = segmenter.clone()
    fitted.tile = None
    fitted.fit(classes)
    seen, failures = dict[Path, Look](), dict[Path, str]()
    unlabelled = list(dict.fromkeys(images))
    with progress("Looking", "photographs") as on_progress:
        for done, image in enumerate(unlabelled, 1):
            try:
                seen[image] = _look(fitted, read_image(image))
            except ImageError as error:
                failures[image] = str(error)
            on_progress(done, len(unlabelled))
    rankings = []
    for name, one in fitted.support_set.items():
        labelled = [summarise(fitted.method.pyramid(s.features), s.mask) for s in one.shots]
        rankings.append(choose(labelled, [look.appearances[name] for look in seen.values()], count))
    names = list(seen)
    ranked = sorted(seen, key=lambda image: seen[image].confidence)
    return Suggestions(
        label_next=[names[place] for place in in_turn(rankings, count)],
        confidence={image: seen[image].confidence for image in ranked},
        failures=failures,
    )


def _look(fitted: Segmenter, picture: Image.Image) -> Look:
    """Segment a picture, reading it once for all classes."""
    query = fitted.encode_query(picture)
    result = fitted.predict_encoded(query, (picture.height, picture.width))
    pyramid = fitted.method.pyramid(query)
    appearances = {
        name: summarise(pyramid, torch.from_numpy(probability)[None, None].to(fitted.device))
        for name, probability in zip(result.class_names, result.class_probabilities, strict=True)
    }
    return Look(result.confidence, appearances)


def summarise(pyramid: FeaturePyramid, weight: Tensor) -> Appearance:
    """Average an image's features over its background and its object; weight: (1, 1, H, W) in [0, 1]."""
    each = [prototypes(pyramid.stages[stage][-1], weight)[0] for stage in STAGES]
    return Appearance(tuple(F.normalize(stage, dim=-1).float().cpu() for stage in each))


def choose(labelled: Sequence[Appearance], unlabelled: Sequence[Appearance], count: int) -> list[int]:
    """Choose `count` photographs to label next: their places, the most useful first.

    Of the likeliest ones each choice brings the mean of all labelled ones nearest to the mean of these
    (herding, Welling 2009, with features in place of samples).
    """
    if count < 1:
        raise DataError(f"{count} suggestions are asked for; ask for at least 1.")
    known = Appearance.mean(labelled)
    ranked = sorted(range(len(unlabelled)), key=lambda place: -known.likeness(unlabelled[place]))
    left = ranked[: CANDIDATES * count]
    if not left:
        return []
    wanted = torch.stack([unlabelled[place].vector() for place in left]).mean(dim=0)
    total, chosen = torch.stack([one.vector() for one in labelled]).sum(dim=0), list[int]()
    while left and len(chosen) < count:
        number = len(labelled) + len(chosen) + 1

        def miss(place: int, total: Tensor = total, number: int = number) -> float:
            return float(((total + unlabelled[place].vector()) / number - wanted).norm())

        best = min(left, key=miss)
        total = total + unlabelled[best].vector()
        chosen.append(best)
        left.remove(best)
    return chosen


def in_turn(rankings: Iterable[Sequence[int]], count: int) -> list[int]:
    """Merge several classes' choices: each names one in turn, and none twice."""
    columns = list(rankings)
    depth = max(map(len, columns), default=0)
    turns = [column[row] for row in range(depth) for column in columns if row < len(column)]
    return list(dict.fromkeys(turns))[:count]
