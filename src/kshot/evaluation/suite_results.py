"""Result files of a suite of tasks: the scores, and what is needed to compute them again."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from kshot.data.protocols import SELECTION_NOTES
from kshot.data.tasks import SuiteEpisodes, TaskSet
from kshot.errors import DataError
from kshot.evaluation.comparison import Difference
from kshot.evaluation.metrics import IntArray, Interval, interval
from kshot.evaluation.results import ModelRecord, read_record
from kshot.evaluation.suite import EpisodeScore, Runner, evaluate_suite
from kshot.evaluation.suite_scores import SizeScore, SuiteCounts, iou_by_size
from kshot.io.provenance import Provenance
from kshot.models.feature_cache import CACHE_GB


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PeerRecord(_Frozen):
    """The record of a peer, which is not a model of kshot."""

    name: str
    settings: dict[str, Any]


class SuiteColumns(_Frozen):
    """Columns with one entry per episode, in the order of the draw; counts are pixels."""

    task: list[int]
    """Index of the task, in the order of `SuiteResult.sets`."""
    draw: list[int]
    query: list[str]
    intersection: list[int]
    union: list[int]
    background_intersection: list[int]
    background_union: list[int]
    share: list[float]
    """The object's share of the image's known pixels."""
    seconds: list[float]
    """CPU time to encode and segment the query."""

    @property
    def counts(self) -> IntArray:
        """The counts as an array (N, 4) in the order of `metrics.Counts`."""
        columns = (self.intersection, self.union, self.background_intersection, self.background_union)
        return np.array(columns, dtype=np.int64).T


class SetScore(_Frozen):
    """The score of one set. tasks: the IoU of each class, by name."""

    iou: float
    interval: Interval
    tasks: dict[str, float]


class SuiteResult(_Frozen):
    """A model's score on a suite of tasks; scores are fractions."""

    kind: Literal["suite"] = "suite"
    format: Literal[1] = 1
    iou: float
    """Mean over sets of the mean over tasks."""
    interval: Interval
    """95 % bootstrap interval over sets and tasks, or over episodes if there is one set."""
    by_size: list[SizeScore]
    seconds_per_image: float
    """CPU time: the median over queries."""
    shots: int
    draws: int
    queries: int | None
    """Largest number of queries in a draw; None: all images of the class."""
    seed: int
    episodes_sha256: str
    left_out: dict[str, int]
    """Skipped tasks, which have too few images, with their numbers of images."""
    model: ModelRecord | PeerRecord
    provenance: Provenance
    sets: dict[str, SetScore]
    episodes: SuiteColumns

    @property
    def tasks(self) -> list[tuple[str, str]]:
        """Set and class of each task."""
        return [(name, task) for name, one in self.sets.items() for task in one.tasks]

    def suite_counts(self, *others: "SuiteResult") -> SuiteCounts:
        """Return the counts of this result and of others on the same episodes, side by side."""
        names = list(self.sets)
        return SuiteCounts(
            np.concatenate([one.episodes.counts for one in (self, *others)], axis=1),
            np.array(self.episodes.task),
            np.array(self.episodes.draw),
            np.array([names.index(name) for name, _ in self.tasks]),
        )


def score_suite(
    runner: Runner,
    model: ModelRecord | PeerRecord,
    sets: Sequence[TaskSet],
    episodes: SuiteEpisodes,
    provenance: Provenance,
    *,
    cache_gb: float = CACHE_GB,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SuiteResult:
    """Run the episodes and return their scores. provenance: recorded before the run."""
    start = time.monotonic()
    found = evaluate_suite(runner, sets, episodes, cache_gb=cache_gb, on_progress=on_progress)
    return make_suite_result(found, model, sets, episodes, provenance.with_duration(time.monotonic() - start))


def make_suite_result(
    found: Sequence[EpisodeScore],
    model: ModelRecord | PeerRecord,
    sets: Sequence[TaskSet],
    episodes: SuiteEpisodes,
    provenance: Provenance,
) -> SuiteResult:
    """Return the result of what `evaluate_suite` returned."""
    tasks = list(dict.fromkeys((one.episode.set_name, one.episode.episode.class_id) for one in found))
    columns = _columns(found, tasks)
    set_names = list(dict.fromkeys(name for name, _ in tasks))
    counts = SuiteCounts(
        columns.counts,
        np.array(columns.task),
        np.array(columns.draw),
        np.array([set_names.index(name) for name, _ in tasks]),
    )
    task_iou = counts.task_iou()
    set_iou = counts.set_iou(task_iou)[0]
    samples, set_samples = counts.resample()
    class_names = {one.name: one.dataset.class_names for one in sets}
    by_set: dict[str, dict[str, float]] = {name: {} for name in set_names}
    for (name, class_id), iou in zip(tasks, task_iou[0], strict=True):
        by_set[name][class_names[name][class_id]] = float(iou)
    return SuiteResult(
        iou=float(set_iou.mean()),
        interval=interval(samples[0]),
        by_size=iou_by_size(columns.counts, counts.task, columns.query, np.array(columns.share)),
        seconds_per_image=float(np.median(columns.seconds)),
        shots=episodes.shots,
        draws=episodes.draws,
        queries=episodes.queries,
        seed=episodes.seed,
        episodes_sha256=episodes.sha256,
        left_out=episodes.left_out,
        model=model,
        provenance=provenance,
        sets={
            name: SetScore(iou=float(set_iou[s]), interval=interval(set_samples[0, :, s]), tasks=by_set[name])
            for s, name in enumerate(set_names)
        },
        episodes=columns,
    )


def _columns(found: Sequence[EpisodeScore], tasks: list[tuple[str, int]]) -> SuiteColumns:
    place = {task: index for index, task in enumerate(tasks)}
    counts = np.array([one.counts for one in found]).T.tolist()
    return SuiteColumns(
        task=[place[one.episode.set_name, one.episode.episode.class_id] for one in found],
        draw=[one.episode.draw for one in found],
        query=[one.episode.episode.query for one in found],
        intersection=counts[0],
        union=counts[1],
        background_intersection=counts[2],
        background_union=counts[3],
        share=[round(one.share, 6) for one in found],
        seconds=[round(one.seconds, 4) for one in found],
    )


def read_suite_result(path: Path) -> SuiteResult:
    """Read a result file of a suite. Raises DataError that says what is wrong."""
    return read_record(path, SuiteResult, "kshot evaluate --data tasks:DIR")


def is_suite_result(path: Path) -> bool:
    """Return whether a file is the result of a suite; False for unreadable files, see `read_result`."""
    try:
        return '"kind": "suite"' in path.read_text(encoding="utf-8")[:200]
    except (OSError, UnicodeDecodeError):
        return False


def compare_suites(a: SuiteResult, b: SuiteResult) -> list[Difference]:
    """Return the differences of two results, overall and by set, with paired bootstrap intervals.

    Raises DataError unless the episodes are the same.
    """
    for what, of_a, of_b in (
        ("number of shots", a.shots, b.shots),
        ("tasks", a.tasks, b.tasks),
        ("set of episodes (sha256)", a.episodes_sha256[:12], b.episodes_sha256[:12]),
    ):
        if of_a != of_b:
            difference = "" if what == "tasks" else f" ({of_a} and {of_b})"
            raise DataError(
                f"The two results cannot be compared: their {what} differ{'s' * (what != 'tasks')}"
                f"{difference}. Run `kshot evaluate` on the same data with the same --shots, "
                "--episodes and --set draws and seeds."
            )
    samples, set_samples = a.suite_counts(b).resample()
    found = [Difference("mean", a.iou, b.iou, b.iou - a.iou, interval(samples[1] - samples[0]))]
    for s, (name, one) in enumerate(a.sets.items()):
        iou = b.sets[name].iou
        sample = set_samples[1, :, s] - set_samples[0, :, s]
        found.append(Difference(name, one.iou, iou, iou - one.iou, interval(sample)))
    return found


def suite_summary(result: SuiteResult) -> list[str]:
    """Return a result as lines of text, in percent."""
    queries = "all queries" if result.queries is None else f"up to {result.queries} queries"
    lines = [
        f"{len(result.tasks)} tasks of {len(result.sets)} sets, {result.shots}-shot, {result.draws} draws of "
        f"{queries} (seed {result.seed})",
        f"{len(result.episodes.task)} episodes; model {named(result.model)}",
    ]
    for name, one in result.sets.items():
        number = f"{len(one.tasks)} task{'s' * (len(one.tasks) > 1)}"
        lines.append(f"  {name:24} {percent(one.iou, one.interval)}  {number}")
    lines.append(f"mean IoU {percent(result.iou, result.interval)}")
    for size in result.by_size:
        value = "   none" if size.iou is None else f"{100 * size.iou:5.1f} %"
        covered = f"{100 * size.low:g} to {100 * size.high:g} % of the image"
        lines.append(f"  object covers {covered:24} {value}  {size.num_images} images")
    lines.append(f"{result.seconds_per_image:.2f} s of the processor for each image (median)")
    if isinstance(result.model, ModelRecord) and result.model.config.selected_on is not None:
        lines.append(f"Note: {SELECTION_NOTES[result.model.config.selected_on]}.")
    return lines


def named(model: ModelRecord | PeerRecord) -> str:
    """Return the name of a model with its method, backbone and size."""
    if isinstance(model, PeerRecord):
        return model.name
    return f"{model.name} ({model.config.method}, {model.config.backbone}, {model.config.image_size} px)"


def percent(value: float, bounds: Interval) -> str:
    """Return a fraction and its interval as text, in percent."""
    low, high = (100 * bound for bound in bounds)
    return f"{100 * value:5.1f} % [{low:.1f}, {high:.1f}]"
