"""Result files: a score, and everything that is needed to reproduce it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from kshot.data.folds import FOLDED
from kshot.data.manifest import Manifest
from kshot.data.protocols import SELECTION_NOTES, Protocol
from kshot.errors import DataError, fault_of
from kshot.evaluation.evaluator import ManifestCounts
from kshot.evaluation.metrics import IntArray, Interval, bootstrap, interval, score_episodes
from kshot.io.files import write_text
from kshot.io.provenance import Provenance
from kshot.methods.config import ModelConfig, with_new_names
from kshot.models.backbones import SHORT_NAMES
from kshot.models.imagenet_weights import weights_sha256
from kshot.segmenter import Segmenter

FEW_EPISODES = 10
"""With fewer episodes of a class, bootstrap intervals are too narrow."""

BACKBONES = {
    "resnet50": "Resnet-50",
    "resnet101": "Resnet-101",
    "vgg16": "VGG-16",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "efficientnet_lite1": "EfficientNet-Lite1",
    "efficientnet_lite2": "EfficientNet-Lite2",
}
"""Printed names of backbones, the first two as in the paper."""

Record = TypeVar("Record", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRecord(_Frozen):
    """The model that was scored."""

    name: str
    """As given to --model; a folder's last part."""
    config: ModelConfig
    weights_sha256: str
    """Digest of all its weights, with the backbones."""

    @field_validator("config", mode="before")
    @classmethod
    def _without_removed_settings(cls, config: Any) -> Any:
        """Drop settings of older files that no longer exist, so that old results can be read."""
        if not isinstance(config, dict):
            return config
        renamed = with_new_names(config)
        return {key: value for key, value in renamed.items() if key in ModelConfig.model_fields}


class EpisodeCounts(_Frozen):
    """Columns with one entry per episode, in the manifest's order; counts are pixels."""

    class_id: list[int]
    intersection: list[int]
    union: list[int]
    background_intersection: list[int]
    background_union: list[int]

    @property
    def counts(self) -> IntArray:
        """The counts as an array (N, 4) in the order of `metrics.Counts`."""
        columns = (self.intersection, self.union, self.background_intersection, self.background_union)
        return np.array(columns, dtype=np.int64).T


class Run(_Frozen):
    """The score on one manifest."""

    seed: int
    manifest_sha256: str
    left_out: dict[str, int]
    """Skipped classes, which have too few images, with their numbers of images."""
    restricted_to: int | None = None
    """Number of images that the draw was restricted to, if some of the benchmark's were missing."""
    miou: float
    fb_iou: float
    class_iou: dict[str, float]
    num_images: int
    features_computed: int
    """Number of features computed for this run; the runs of a result share features. The sum exceeds the
    number of images if the cache was too small."""
    num_empty_supports: int
    """Number of support images whose object vanished at the network's size."""
    episodes: EpisodeCounts


class Result(_Frozen):
    """A model's score on a benchmark. Scores are fractions, means over the runs (one for each seed)."""

    format: Literal[1] = 1
    miou: float
    fb_iou: float
    class_iou: dict[str, float]
    class_episodes: dict[str, int]
    interval: dict[str, Interval]
    """95 % bootstrap intervals over episodes, of miou, fb_iou and each class."""
    benchmark: str
    split: str
    fold: int
    shots: int
    protocol: Protocol
    """The protocol, with the number of episodes and the seeds that were run."""
    image_size: int
    scored_at: Literal["network", "original"]
    classes: dict[int, str]
    model: ModelRecord
    provenance: Provenance
    runs: list[Run]

    @property
    def manifests(self) -> tuple[str, ...]:
        """Digests of the manifests that were run."""
        return tuple(run.manifest_sha256 for run in self.runs)


def make_run(manifest: Manifest, counted: ManifestCounts) -> Run:
    """Return the score on one manifest."""
    class_ids = np.array([episode.class_id for episode in manifest.episodes])
    scores = score_episodes(counted.counts, class_ids, tuple(manifest.classes))
    columns = [column.tolist() for column in counted.counts.T]
    return Run(
        seed=manifest.seed,
        manifest_sha256=manifest.sha256,
        left_out=manifest.left_out,
        restricted_to=manifest.restricted_to,
        miou=scores.miou,
        fb_iou=scores.fb_iou,
        class_iou={manifest.classes[c]: value for c, value in scores.class_iou.items()},
        num_images=counted.num_images,
        features_computed=counted.num_computed,
        num_empty_supports=counted.num_empty_supports,
        episodes=EpisodeCounts(
            class_id=class_ids.tolist(),
            intersection=columns[0],
            union=columns[1],
            background_intersection=columns[2],
            background_union=columns[3],
        ),
    )


def make_result(
    manifests: Sequence[Manifest],
    runs: list[Run],
    protocol: Protocol,
    image_size: int,
    model: ModelRecord,
    provenance: Provenance,
) -> Result:
    """Return the result of the runs of several seeds."""
    first = manifests[0]
    names = list(first.classes.values())
    drawn = [class_id for run in runs for class_id in run.episodes.class_id]
    return Result(
        miou=float(np.mean([run.miou for run in runs])),
        fb_iou=float(np.mean([run.fb_iou for run in runs])),
        class_iou={name: float(np.mean([run.class_iou[name] for run in runs])) for name in names},
        class_episodes={name: drawn.count(class_id) for class_id, name in first.classes.items()},
        interval=_intervals(runs, first.classes),
        benchmark=first.benchmark,
        split=first.split,
        fold=first.fold,
        shots=first.shots,
        protocol=protocol,
        image_size=image_size,
        scored_at=protocol.scored_at,
        classes=first.classes,
        model=model,
        provenance=provenance,
        runs=runs,
    )


def resample(runs: Sequence[Run], classes: Sequence[int], others: Sequence[Run] = ()) -> NDArray[np.float64]:
    """Return scores of resampled episodes, the mean over the runs: (resamples, 2 + classes).

    others: runs of another method on the same episodes; the result is then (2, resamples, 2 + classes).
    """
    samples = []
    for index, run in enumerate(runs):
        counts = [r.episodes.counts for r in (run, *others[index : index + 1])]
        samples.append(
            bootstrap(np.concatenate(counts, axis=1), np.array(run.episodes.class_id), classes, seed=index)
        )
    return np.asarray(np.mean(samples, axis=0))


def _intervals(runs: list[Run], classes: dict[int, str]) -> dict[str, Interval]:
    samples = resample(runs, tuple(classes))
    return {name: interval(samples[:, i]) for i, name in enumerate(["miou", "fb_iou", *classes.values()])}


def printed_name(name: str) -> str:
    """Return the printed name of a backbone, or the name itself if there is none."""
    name = name.replace("-", "_")
    short = {full: short for short, full in SHORT_NAMES.items()}.get(name, name)
    return BACKBONES.get(short, short)


def record_model(name: str, segmenter: Segmenter) -> ModelRecord:
    """Return the record of a model: its config and the digest of its weights."""
    return ModelRecord(
        name=Path(name).name, config=segmenter.config, weights_sha256=weights_sha256(segmenter.method)
    )


def summary(result: Result) -> list[str]:
    """Return a result as lines of text, in percent."""
    protocol, config = result.protocol, result.model.config
    square = f"{result.image_size} px {protocol.fit}, scored at {result.scored_at} size"
    seeds = ", ".join(str(run.seed) for run in result.runs)
    part = f"fold {result.fold} ({result.split})" if result.benchmark in FOLDED else result.split
    lines = [
        f"{result.benchmark} {part}, {result.shots}-shot, protocol {protocol.name} ({square})",
        f"{protocol.num_episodes} episodes of each seed ({seeds}); model {result.model.name} "
        f"({config.method}, {config.backbone})",
    ]
    for name, iou in result.class_iou.items():
        number = result.class_episodes[name]
        note = (
            f"{number} episode{'s' * (number > 1)}"
            if number
            else "never drawn: counts as 0, draw more episodes"
        )
        lines.append(f"  {name:24} {_percent(iou, result.interval[name])}  {note}")
    lines.append(f"mIoU   {_percent(result.miou, result.interval['miou'])}")
    lines.append(f"FB-IoU {_percent(result.fb_iou, result.interval['fb_iou'])}")
    if few := sum(0 < number < FEW_EPISODES for number in result.class_episodes.values()):
        lines.append(
            f"Note: {few} classes have fewer than {FEW_EPISODES} episodes; intervals are too narrow."
        )
    if config.selected_on is not None:
        lines.append(f"Note: {SELECTION_NOTES[config.selected_on]}.")
    if empty := sum(run.num_empty_supports for run in result.runs):
        lines.append(f"Note: in {empty} support images the object vanishes at {result.image_size} px.")
    return lines


def _percent(value: float, interval: Interval) -> str:
    low, high = (100 * bound for bound in interval)
    return f"{100 * value:5.1f} % [{low:.1f}, {high:.1f}]"


def result_json(result: BaseModel) -> str:
    """Return a result as JSON, in which each list of numbers takes one line."""
    text = json.dumps(result.model_dump(mode="json"), indent=2)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)


def write_result(result: BaseModel, path: Path) -> None:
    """Write a result as JSON, atomically."""
    write_text(result_json(result) + "\n", path)


def read_result(path: Path) -> Result:
    """Read a result file. Raises DataError that says what is wrong."""
    return read_record(path, Result, "kshot evaluate")


def read_record(path: Path, kind: type[Record], verb: str) -> Record:
    """Read what `write_result` wrote. verb: the command that makes such files, for the error."""
    try:
        return kind.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise DataError(f"There is no result file {path}. `{verb} --json` writes one.") from None
    except (ValidationError, UnicodeDecodeError) as error:
        fault = fault_of(error) if isinstance(error, ValidationError) else f"file: {error}"
        raise DataError(f"{path} is no result of {verb}: {fault}.") from error
