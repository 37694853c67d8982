"""All shipped models and two peers on many small tasks, and on the development half of VOC 2012's val list.

    python benchmarks/dev_suite.py --tasks DIR --voc-dev DIR [--models NAME ...] [--into README.md ...]

Run it from the repository's root. It writes one file for each model, data and number of shots in
`benchmarks/results/dev`; what is there is kept, so that a stopped run goes on. --models measures these only:
`prototype`, `prototype-lite2`, `hsnet`, `two-pass`, `two-pass-plus`, `logistic`, `forest`, or NAME=FOLDER for
any other model. The tables show all that is measured.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from peers import ForestPeer, LogisticPeer

from kshot.data.tasks import TaskSet, draw_episodes, pascal_set, read_task_sets
from kshot.errors import DataError
from kshot.evaluation.results import ModelRecord, record_model, write_result
from kshot.evaluation.suite import Runner, SegmenterRunner
from kshot.evaluation.suite_results import PeerRecord, SuiteResult, read_suite_result, score_suite
from kshot.evaluation.suite_scores import SIZES
from kshot.io.files import write_text
from kshot.io.progress import progress
from kshot.io.provenance import record_provenance
from kshot.reproduction.table_writers import MISSING, Cell, Table, insert_between, to_markdown
from kshot.segmenter import Segmenter

RESULTS = Path("benchmarks/results/dev")
MODELS = ("two-pass-general", "prototype", "prototype-lite2", "hsnet", "two-pass", "two-pass-plus")
PEERS: dict[str, Callable[[], LogisticPeer | ForestPeer]] = {"logistic": LogisticPeer, "forest": ForestPeer}
PRINTED = {
    "logistic": "logistic regression on EfficientNet-Lite2",
    "forest": "random forest (as in ilastik)",
}
BEST = "best of all, task by task"
FOLD = 0


class Run(NamedTuple):
    """What is scored at once. queries: most of a draw; None: all."""

    data: str
    shots: int
    queries: int | None

    def file(self, model: str, folder: Path | None = None) -> Path:
        """Give the place of a model's result."""
        return (RESULTS if folder is None else folder) / f"{self.data}_{model}_{self.shots}shot.json"


TASKS_1, TASKS_5, VOC = Run("tasks", 1, 5), Run("tasks", 5, 2), Run("voc-dev", 1, None)
RUNS = (TASKS_1, VOC, TASKS_5)


def main() -> None:
    """Score what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=Path, help="folder of task sets, or a file that lists them")
    parser.add_argument("--voc-dev", type=Path, help="folder in VOC 2012's layout")
    parser.add_argument("--models", nargs="+", default=[*MODELS, *PEERS], metavar="NAME")
    parser.add_argument("--only-table", action="store_true", help="measure nothing")
    parser.add_argument("--into", type=Path, nargs="+", default=[], help="documents with the tables' markers")
    given = parser.parse_args()
    if not given.only_table:
        if given.tasks is None and given.voc_dev is None:
            parser.error("give --tasks DIR or --voc-dev DIR, or --only-table")
        measure(given.models, given.tasks, given.voc_dev)
    tables = make_tables(read_results())
    for path in given.into:
        write_text(put_tables(path.read_text(), tables, path), path)
    if not given.into:
        print("\n".join(tables.values()))


def measure(models: Sequence[str], tasks: Path | None, voc_dev: Path | None) -> None:
    """Write the result files that are missing, all models on one kind of episodes before the next kind."""
    for name in models:
        check_name(name)
    sets: dict[str, list[TaskSet]] = {}
    if tasks is not None:
        sets["tasks"] = read_task_sets(tasks)
    if voc_dev is not None:
        sets["voc-dev"] = [pascal_set(voc_dev, FOLD)]
    for run in RUNS:
        for name in models:
            if run.data in sets and not run.file(name.split("=")[0]).exists():
                score(name, run, sets[run.data])


def check_name(name: str) -> None:
    """Raise DataError for what is neither a model, nor a peer, nor NAME=FOLDER."""
    if "=" not in name and name not in (*MODELS, *PEERS):
        known = ", ".join([*MODELS, *PEERS])
        raise DataError(f"There is no model '{name}' here. Choose from {known}, or give NAME=FOLDER.")
    if "=" in name and not Path(name.split("=", 1)[1]).is_dir():
        raise DataError(f"'{name}' names no folder of a model. Give NAME=FOLDER.")


def score(
    name: str,
    run: Run,
    sets: list[TaskSet],
    folder: Path | None = None,
    command: str = "make dev-results",
) -> None:
    """Score a model or peer, and write its result; folder: where to, if not to RESULTS."""
    provenance = record_provenance([]).model_copy(update={"command": command})
    drawn = draw_episodes(sets, run.shots, queries=run.queries)
    runner, record = load(name)
    with progress(f"{run.data} {run.shots}-shot {record.name}", "episodes") as on_progress:
        result = score_suite(runner, record, sets, drawn, provenance, on_progress=on_progress)
    path = run.file(record.name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_result(result, path)


def load(name: str) -> tuple[Runner, ModelRecord | PeerRecord]:
    """Load a model or peer, and describe it."""
    if name in PEERS:
        peer = PEERS[name]()
        return peer, PeerRecord(name=name, settings=peer.settings)
    name, _, folder = name.partition("=")
    if name == "prototype-lite2":
        segmenter = Segmenter.from_pretrained("prototype", backbone="efficientnet_lite2", device="cpu")
    else:
        segmenter = Segmenter.from_pretrained(folder or name, device="cpu")
    return SegmenterRunner(segmenter), record_model(name, segmenter)


Results = dict[str, dict[Run, SuiteResult]]
"""By model, then by what was scored."""


def read_results() -> Results:
    """Read every result file: the models that ship, others, and the peers."""
    found = {run: sorted(RESULTS.glob(f"{run.data}_*_{run.shots}shot.json")) for run in RUNS}
    names = {name_of(path, run) for run, paths in found.items() for path in paths}
    order = [*MODELS, *sorted(names - {*MODELS, *PEERS}), *PEERS]
    return {
        name: {run: read_suite_result(run.file(name)) for run in RUNS if run.file(name).exists()}
        for name in order
        if name in names
    }


def name_of(path: Path, run: Run) -> str:
    """Give the model's name in a result's file name."""
    return path.name.removeprefix(f"{run.data}_").removesuffix(f"_{run.shots}shot.json")


def make_tables(results: Results) -> dict[str, str]:
    """Write both tables as Markdown, by the name of their markers."""
    return {
        "table-dev": to_markdown(main_table(results)),
        "table-dev-sets": to_markdown(sets_table(results)),
    }


def main_table(results: Results) -> Table:
    """Lay out the means, by size of the object, and the time."""
    bins = [f"{100 * low:g} to {100 * high:g} %" for low, high in pairwise(SIZES)]
    columns = [("", "model"), ("tasks", "1-shot"), ("tasks", "5-shot"), ("VOC 2012 dev", f"fold {FOLD}")]
    columns += [("object covers", name) for name in bins] + [("", "s per image")]
    rows = [row_of(name, found) for name, found in results.items()]
    best = [Cell(BEST), *(Cell(best_mean(results, run)) for run in (TASKS_1, TASKS_5, VOC))]
    return Table(
        "Mean IoU in percent, on small tasks of many kinds and on VOC 2012",
        tuple(columns),
        (*rows, (*best, *[Cell(MISSING)] * (len(bins) + 1))),
        (
            "With 95 % intervals: of the tasks by bootstrap over sets and tasks, of VOC 2012 over episodes.",
            "By size: single images of the tasks, 1-shot. Seconds of one core, median.",
        ),
        num_texts=1,
    )


def row_of(name: str, found: dict[Run, SuiteResult]) -> tuple[Cell, ...]:
    """Lay out a model's results."""
    means = [with_interval(found.get(run)) for run in (TASKS_1, TASKS_5, VOC)]
    one = found.get(TASKS_1)
    if one is None:
        rest = [MISSING] * len(SIZES)
    else:
        rest = [MISSING if size.iou is None else f"{100 * size.iou:.1f}" for size in one.by_size]
        rest.append(f"{one.seconds_per_image:.2f}")
    return tuple(Cell(text) for text in (PRINTED.get(name, f"`{name}`"), *means, *rest))


def with_interval(result: SuiteResult | None) -> str:
    """Write a mean with its interval."""
    if result is None:
        return MISSING
    low, high = result.interval
    return f"{100 * result.iou:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def best_sets(results: Results, run: Run) -> dict[str, float]:
    """Score each set as if one knew the best model of each of its tasks."""
    scored = [found[run] for found in results.values() if run in found]
    check_same(scored)
    if not scored:
        return {}
    best = {}
    for name, one in scored[0].sets.items():
        tasks = [max(other.sets[name].tasks[task] for other in scored) for task in one.tasks]
        best[name] = sum(tasks) / len(tasks)
    return best


def check_same(scored: Sequence[SuiteResult]) -> None:
    """Raise DataError if results that stand in one column are of different episodes."""
    for other in scored[1:]:
        if other.episodes_sha256 != scored[0].episodes_sha256:
            names = f"{scored[0].model.name} and {other.model.name}"
            raise DataError(f"{names} were scored on different episodes. Delete the older file in {RESULTS}.")


def best_mean(results: Results, run: Run) -> str:
    """Write the mean over sets of `best_sets`."""
    best = best_sets(results, run)
    return f"{100 * sum(best.values()) / len(best):.1f}" if best else MISSING


def sets_table(results: Results) -> Table:
    """Lay out the tasks at one shot by set."""
    best = best_sets(results, TASKS_1)
    shown = {name: found[TASKS_1] for name, found in results.items() if TASKS_1 in found}
    rows = []
    for name in best:
        number = len(next(iter(shown.values())).sets[name].tasks)
        values = [one.sets[name].iou for one in shown.values()]
        cells = [f"**{100 * v:.1f}**" if v == max(values) else f"{100 * v:.1f}" for v in values]
        rows.append(tuple(Cell(text) for text in (name, str(number), *cells, f"{100 * best[name]:.1f}")))
    columns = ["set", "tasks", *(name if name in PEERS else f"`{name}`" for name in shown), BEST]
    return Table(
        "Mean IoU in percent of each set's tasks, 1-shot; the best in bold",
        tuple(("", name) for name in columns),
        tuple(rows),
        num_texts=1,
    )


def put_tables(text: str, tables: dict[str, str], path: Path) -> str:
    """Put each table for which a document has markers between them."""
    wanted = {name: table for name, table in tables.items() if f"<!-- begin {name} -->" in text}
    if not wanted:
        raise DataError(f"{path} has no markers of {' or '.join(tables)}: <!-- begin table-dev -->.")
    for name, table in wanted.items():
        text = insert_between(text, name, table)
    return text


if __name__ == "__main__":
    main()
