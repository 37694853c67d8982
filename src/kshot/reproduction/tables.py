"""Tables: the paper's with our rows added, our ablation, and lists of results.

The paper's numbers are in `published.json`; our rows are made from `Result` objects only. The label of a row
contains everything that its results must share, such as the protocol, so that printed labels are unique.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kshot.data.folds import FOLDED, NUM_FOLDS, novel_classes
from kshot.data.protocols import SELECTION_NOTES, Protocol, preset
from kshot.errors import DataError
from kshot.evaluation.metrics import interval
from kshot.evaluation.results import Result, printed_name, resample
from kshot.methods.hub import list_models
from kshot.reproduction.table_writers import MISSING, Cell, Table

MEAN = NUM_FOLDS
"""Fold number of the mean of all folds; sorts after them."""

SHOTS = (1, 5)
METHODS = ("prototype", "hsnet", "two-pass")
"""kshot's own methods, in the order of rows."""

ABLATION = {
    "cls": "Baseline",
    "sem": "with B_sem",
    "both": "with B_cls + B_sem",
    "two-pass": "two-pass with B_cls + B_sem",
}
"""Names in Table 5: hsnet by its backbones, and two-pass."""

OURS = (
    "Rows marked kshot come from result files of kshot evaluate; "
    f"{MISSING}: no result. Means are over all four folds."
)

Number = Literal["2", "3", "5"]


class PublishedRow(BaseModel):
    """A row as printed, in percent; five numbers for each number of shots, the last one the mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    method: str
    reference: int | None
    """Number in the paper's list of references."""
    cite: str | None
    cells: dict[int, tuple[str | None, ...]]
    slip: dict[str, str] = {}
    """Inconsistencies of the whole "row", or of the mean of "1" or "5" shots."""


class PublishedTable(BaseModel):
    """A table of the paper."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str
    title: str
    source: str
    notes: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


class _Column(NamedTuple):
    """Identity of a column. Sorts in the order of printing."""

    benchmark: str
    split: str
    shots: int
    fold: int


class _Row(NamedTuple):
    """Identity of a row."""

    backbone: str
    label: str
    selected_on: str
    """Empty if there was nothing to choose."""


_Filled = dict[_Row, dict[_Column, Result]]


def read_published(number: Number) -> PublishedTable:
    """Return the paper's printed numbers. Raises DataError for another table."""
    tables = json.loads((files("kshot") / "reproduction" / "published.json").read_text("utf-8"))["tables"]
    if number not in tables:
        raise DataError(f"There is no published table '{number}'. Choose one of {', '.join(tables)}.")
    return PublishedTable.model_validate(tables[number])


def paper_table(number: Number, results: Sequence[Result]) -> Table:
    """Return the paper's Table 2, 3 or 5: its printed rows, then ours on the same test split.

    Results of other benchmarks, splits and numbers of shots are ignored, as are other methods in Table 5.
    Raises DataError if two results fill the same cell, or a row mixes weights of its backbone.
    """
    published = read_published(number)
    fitting = [r for r in results if _fits(r, number, published.benchmark)]
    filled = _fill(fitting, _ablation_label if number == "5" else _method_label)
    rows: list[tuple[Cell, ...]] = []
    for backbone in _backbones(published, filled):
        rows += [_published_cells(row) for row in published.rows if row.backbone == backbone]
        rows += [_our_cells(r, c, published.benchmark) for r, c in filled.items() if r.backbone == backbone]
    names = (*(f"f{fold}" for fold in range(NUM_FOLDS)), "mIoU")
    return Table(
        published.title,
        (("", "Backbone"), ("", "Method"), *((f"{k}-shot", name) for k in SHOTS for name in names)),
        tuple(rows),
        (f"Rows marked published: {published.source}.", *published.notes, *([OURS] if filled else [])),
    )


def list_table(results: Sequence[Result]) -> Table:
    """Return a table with one row per result, and the mean of four folds if all are given.

    Raises DataError as `paper_table` does.
    """
    placed = [
        (column, row, cells)
        for row, cells in _fill(results, _list_label).items()
        for column in {*cells, *(column._replace(fold=MEAN) for column in cells)}
        if column in cells or _mean_cell(cells, column, "miou").text != MISSING
    ]
    names = ("Benchmark", "Shots", "Backbone", "Model", "mIoU", "95 % interval", "FB-IoU")
    return Table(
        "Scores in percent; intervals by bootstrap over episodes",
        tuple(("", name) for name in names),
        tuple(_listed_cells(*one) for one in sorted(placed, key=lambda one: one[:2])),
        tuple(_describe_columns(results)),
        num_texts=4,
    )


def ablation_table(results: Sequence[Result]) -> Table:
    """Return a table of methods on the same episodes: mIoU of each, then the lead of two-pass over it.

    Several training runs of a method are averaged. Intervals are over episodes, and paired for differences.
    Raises DataError without two-pass, or if episodes, protocol or image size differ within a column.
    """
    columns = sorted({_column(result) for result in results})
    found: dict[str, dict[_Column, list[Result]]] = {}
    for result in sorted(results, key=lambda r: (*_order((_row(r, ""), _column(r), r)), r.model.name)):
        first = next(r for r in results if _column(r) == _column(result))
        if _run_of(first) != _run_of(result):
            raise DataError(
                f"{_identity(first)} and {_identity(result)} cannot stand in one column, "
                f"{_name(_column(first))}: their episodes, protocol or image size differ. "
                "Run `kshot evaluate` alike for both."
            )
        found.setdefault(_method(result), {}).setdefault(_column(result), []).append(result)
    if "two-pass" not in found:
        raise DataError("An ablation compares with two-pass, but there is no result of it. Give one.")
    ours = found["two-pass"]
    rows = [(Cell(name), *(_mean_of(row.get(c, [])) for c in columns)) for name, row in found.items()]
    rows += [
        (Cell(f"two-pass is ahead of {name} by"), *(_lead(ours.get(c, []), row.get(c, [])) for c in columns))
        for name, row in found.items()
        if name != "two-pass"
    ]
    ran = dict.fromkeys(f"{printed_name(r.model.config.backbone)}, {r.image_size} px" for r in results)
    return Table(
        f"mIoU in percent, with 95 % intervals over episodes ({'; '.join(ran)})",
        (("", "Method"), *((_name(column), f"{column.shots}-shot") for column in columns)),
        tuple(rows),
        (
            "All methods ran on the same episodes, and differences are paired.",
            *_describe_columns([ours[c][0] for c in columns if c in ours]),
        ),
        num_texts=1,
    )


def _run_of(result: Result) -> tuple[object, ...]:
    """Return what the results of a column must share."""
    return result.manifests, result.protocol, result.image_size, result.scored_at


def _mean_of(results: Sequence[Result]) -> Cell:
    if not results:
        return Cell(MISSING)
    low, high = map(_percent, interval(_samples(results)))
    each = ", ".join(_percent(result.miou) for result in results)
    notes = (f"{len(results)} trainings: {each}.",) if len(results) > 1 else ()
    return Cell(f"{_percent(_mean(results))} ({low} to {high})", notes)


def _lead(ours: Sequence[Result], theirs: Sequence[Result]) -> Cell:
    if not ours or not theirs:
        return Cell(MISSING)
    low, high = interval(_samples(ours) - _samples(theirs))
    lead = _mean(ours) - _mean(theirs)
    return Cell(f"{100 * lead:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")


def _mean(results: Sequence[Result]) -> float:
    return sum(result.miou for result in results) / len(results)


def _samples(results: Sequence[Result]) -> NDArray[np.float64]:
    """Resample the mean mIoU; methods on the same episodes get the same resamples."""
    return np.asarray(np.mean([resample(r.runs, tuple(r.classes))[:, 0] for r in results], axis=0))


def _method(result: Result) -> str:
    """Return the name of a method, with its backbones for hsnet."""
    config = result.model.config
    if config.method != "hsnet":
        return config.method
    return f"hsnet by {'both' if config.backbones == 'both' else f'B_{config.backbones}'}"


def _fits(result: Result, number: Number, benchmark: str) -> bool:
    is_test = (result.benchmark, result.split) == (benchmark, "val") and result.shots in SHOTS
    return is_test and (number != "5" or result.model.config.method in ("hsnet", "two-pass"))


def _fill(results: Iterable[Result], label: Callable[[Result], str]) -> _Filled:
    """Return the results by row and column, rows in the order of printing."""
    placed = [(_row(result, label(result)), _column(result), result) for result in results]
    filled: _Filled = {}
    for row, column, result in sorted(placed, key=_order):
        cells = filled.setdefault(row, {})
        _check_fits(row, column, result, cells)
        cells[column] = result
    return filled


def _order(placed: tuple[_Row, _Column, Result]) -> tuple[str, int, str, str, _Row, _Column]:
    """Return the key that sorts rows: kshot's own methods first, then those of other packages by name."""
    row, column, result = placed
    config = result.model.config
    place = METHODS.index(config.method) if config.method in METHODS else len(METHODS)
    return row.backbone, place, config.method, config.backbones, row, column


def _check_fits(row: _Row, column: _Column, result: Result, cells: dict[_Column, Result]) -> None:
    where = f"{row.backbone}, {row.label}"
    if column in cells:
        raise DataError(
            f"Two results fill the same cell, {where}, {_name(column)} {column.shots}-shot: "
            f"{_identity(cells[column])} and {_identity(result)}. Leave one of them out."
        )
    other = next(iter(cells.values()), result)
    if _weights(other) != _weights(result):
        raise DataError(
            f"The row {where} mixes weights of its backbone: those of {_identity(other)} have sha256 "
            f"{_weights(other)[:12]}, those of {_identity(result)} {_weights(result)[:12]}. "
            "Leave one of them out."
        )


def _weights(result: Result) -> str:
    """Return the digest of the weights that all folds share."""
    config = result.model.config
    return result.model.weights_sha256 if config.method == "prototype" else config.backbone_sha256 or "none"


def _identity(result: Result) -> str:
    return f"{result.model.name} of {result.provenance.date}"


def _row(result: Result, label: str) -> _Row:
    config = result.model.config
    return _Row(printed_name(config.backbone), label, config.selected_on or "")


def _column(result: Result) -> _Column:
    return _Column(result.benchmark, result.split, result.shots, result.fold)


def _name(column: _Column) -> str:
    words = [column.benchmark]
    if column.split not in ("val", "all"):
        words.append(column.split)
    if column.benchmark in FOLDED:
        words.append("mean of folds" if column.fold == MEAN else f"fold {column.fold}")
    return " ".join(words)


def _backbones(published: PublishedTable, filled: _Filled) -> list[str]:
    """Return the groups of rows: the paper's backbones, then others."""
    return list(dict.fromkeys([*(row.backbone for row in published.rows), *(row.backbone for row in filled)]))


def _method_label(result: Result) -> str:
    config = result.model.config
    has_choice = config.method == "hsnet" and config.backbones != "cls"
    matched = f" matched by {config.backbones}" if has_choice else ""
    return f"{config.method}{matched}{_condition(result)}"


def _ablation_label(result: Result) -> str:
    config = result.model.config
    name = "two-pass" if config.method == "two-pass" else config.backbones
    return f"{ABLATION[name]}{_condition(result)}"


def _list_label(result: Result) -> str:
    """Return the label with the model's name, if it is trained and not one of four models of the folds."""
    label, model = _method_label(result), result.model
    has_row = result.benchmark not in FOLDED or model.name in list_models()
    return f"{model.name}: {label}" if has_row and model.config.method != "prototype" else label


def _condition(result: Result) -> str:
    """Return the settings that the results of a row share, in brackets."""
    config, protocol = result.model.config, result.protocol
    standard = preset(protocol.name, result.benchmark)
    words = [f"{protocol.name} protocol", f"{result.image_size} px"]
    words += ["mask before"] if config.mask_position == "before" else []
    words += ["sharpened"] if config.sharpen_mask else []
    words += ["no base map"] if config.method == "two-pass" and not config.base_classes else []
    words += [f"drawn by {protocol.rule}"] if protocol.rule != standard.rule else []
    words += [f"fit by {protocol.fit}"] if protocol.fit != standard.fit else []
    words += [f"scored at {result.scored_at} size"] if result.scored_at != standard.scored_at else []
    return f" ({', '.join(words)})"


def _published_cells(row: PublishedRow) -> tuple[Cell, ...]:
    label = f"{row.method} ({row.cite}), published" if row.cite else f"{row.method}, published"
    cells = [Cell(row.backbone), Cell(label, _slip(row, "row"))]
    for shots in SHOTS:
        *folds, mean = (value or MISSING for value in row.cells[shots])
        cells += [*map(Cell, folds), Cell(mean, _slip(row, str(shots)))]
    return tuple(cells)


def _slip(row: PublishedRow, place: str) -> tuple[str, ...]:
    return (row.slip[place],) if place in row.slip else ()


def _our_cells(row: _Row, cells: dict[_Column, Result], benchmark: str) -> tuple[Cell, ...]:
    made = []
    for shots in SHOTS:
        for fold in range(NUM_FOLDS):
            result = cells.get(_Column(benchmark, "val", shots, fold))
            made.append(Cell(MISSING) if result is None else Cell(_percent(result.miou), _deviations(result)))
        mean = _mean_cell(cells, _Column(benchmark, "val", shots, MEAN), "miou")
        made.append(mean if mean.text == MISSING else mean._replace(notes=_all_notes(made[-NUM_FOLDS:])))
    return Cell(row.backbone), _label_cell(row, "kshot "), *made


def _all_notes(cells: list[Cell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for cell in cells for note in cell.notes))


def _label_cell(row: _Row, maker: str = "") -> Cell:
    note = SELECTION_NOTES.get(row.selected_on)
    return Cell(f"{maker}{row.label}", (f"{note[0].upper()}{note[1:]}.",) if note else ())


def _deviations(result: Result) -> tuple[str, ...]:
    """Return notes on numbers from other episodes or fewer classes than the protocol's."""
    ran, standard = result.protocol, preset(result.protocol.name, result.benchmark)
    notes = []
    if (ran.num_episodes, ran.seeds) != (standard.num_episodes, standard.seeds):
        notes.append(f"Made of {_episodes(ran)}; the {ran.name} protocol has {_episodes(standard)}.")
    novel = len(novel_classes(result.benchmark, result.fold))
    if len(result.classes) != novel:
        notes.append(f"Mean of {len(result.classes)} of the {novel} classes of fold {result.fold}.")
    return tuple(notes)


def _episodes(protocol: Protocol) -> str:
    seeds = ", ".join(map(str, protocol.seeds))
    if len(protocol.seeds) == 1:
        return f"{protocol.num_episodes} episodes (seed {seeds})"
    return f"{protocol.num_episodes} episodes of each seed ({seeds})"


def _mean_cell(cells: dict[_Column, Result], column: _Column, score: Literal["miou", "fb_iou"]) -> Cell:
    """Return the mean of the unrounded folds, or MISSING unless all are given."""
    folds = [cells.get(column._replace(fold=fold)) for fold in range(NUM_FOLDS)]
    values = [getattr(result, score) for result in folds if result is not None]
    return Cell(_percent(sum(values) / NUM_FOLDS) if len(values) == NUM_FOLDS else MISSING)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _listed_cells(column: _Column, row: _Row, cells: dict[_Column, Result]) -> tuple[Cell, ...]:
    what = (Cell(_name(column)), Cell(str(column.shots)), Cell(row.backbone), _label_cell(row))
    if column.fold == MEAN:
        return (*what, _mean_cell(cells, column, "miou"), Cell(MISSING), _mean_cell(cells, column, "fb_iou"))
    result = cells[column]
    low, high = map(_percent, result.interval["miou"])
    return (*what, Cell(_percent(result.miou)), Cell(f"{low} to {high}"), Cell(_percent(result.fb_iou)))


def _describe_columns(results: Sequence[Result]) -> list[str]:
    """Return the data behind each column, one line for columns that share it."""
    of_column: dict[_Column, list[str]] = {}
    for result in sorted(results, key=lambda r: (_column(r), _describe(r))):
        of_column.setdefault(_column(result), []).append(_describe(result))
    alike: dict[str, list[str]] = {}
    for column, descriptions in of_column.items():
        name = f"{_name(column)} {column.shots}-shot"
        alike.setdefault("; ".join(dict.fromkeys(descriptions)), []).append(name)
    return [f"{', '.join(names)}: {description}." for description, names in alike.items()]


def _describe(result: Result) -> str:
    classes = f"{len(result.classes)} {'class' if len(result.classes) == 1 else 'classes'}"
    text = f"{classes}, {_episodes(result.protocol)} by the {result.protocol.name} protocol"
    if there := {run.restricted_to for run in result.runs} - {None}:
        text += f", drawn from the {', '.join(map(str, there))} images that were available"
    left_out = dict.fromkeys(name for run in result.runs for name in run.left_out)
    return f"{text}, without {', '.join(left_out)} (too few images)" if left_out else text
