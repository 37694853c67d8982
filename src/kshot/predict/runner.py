"""Segment many images: what the `segment` command does once the supports are read."""

import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console

from kshot.annotations.writers import CocoInstances, SegmentedImage
from kshot.errors import KshotError, WriteError
from kshot.io.files import save_image, write_text
from kshot.io.filetypes import file_type
from kshot.io.images import read_image
from kshot.io.overlays import SheetRow, contact_sheet, heatmap, overlay
from kshot.io.progress import make_bar
from kshot.io.raster_options import RasterOptions
from kshot.predict.outputs import INSTANCES_FILE, Outputs
from kshot.predict.resume_log import JOURNAL_FILE, Journal, Record, pack_row, state_of, unpack_row
from kshot.predict.segment_geotiff import segment_map
from kshot.predict.segment_volume import segment_scan
from kshot.predict.stats import Summary
from kshot.predict.support_set import CELL, Supports
from kshot.results import SegmentationResult
from kshot.segmenter import Segmenter

SHEET_ROWS = 12
"""Queries on the contact sheet: the first ones, so that thousands don't make one huge picture."""

SHEET_FILE = "contact_sheet.png"

FAILURES_FILE = "failures.jsonl"
"""Images that could not be segmented, with the reason, in the results' folder."""

CONFIDENCE_FILE = "confidence.csv"
"""Each image's confidence, the least sure first, in the results' folder."""

MAX_SHARES = 6
"""Classes whose shares of a picture are printed."""

MAX_HEATMAPS = 4
"""Classes up to which the contact sheet shows each one's probability."""


@dataclass
class Report:
    """What happened so far: the images that are done, in their order, and failures with reasons."""

    records: list[Record] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    num_rows: int = 0
    """Records with a row for the contact sheet."""

    def add(self, record: Record) -> None:
        """Note an image that is done."""
        self.records.append(record)
        self.num_rows += record.row is not None


def segment_all(segmenter: Segmenter, supports: Supports, outputs: Outputs, view: RasterOptions) -> int:
    """Segment every query, write its files and the contact sheet; return how many failed.

    What was done before, by the folder's journal, is not done again, but it is in the report. A bad image is
    noted in `failures.jsonl` and does not stop the others; a full disk does, by WriteError.
    """
    console, report = Console(), Report()
    journal = Journal(outputs.own_file(JOURNAL_FILE))
    done = outputs.done(journal.read(), "labels" if len(supports.classes) > 1 else "mask")
    num_left = len(outputs.queries) - len(done)
    if done:
        print(f"{len(done)} of {len(outputs.queries)} images were done before", flush=True)
    steps, start = _segment_rest(segmenter, supports, outputs, view, done, journal, report), time.monotonic()
    with make_bar(console) as progress:
        task = progress.add_task("Segmenting", total=num_left)
        for index, (has_failed, line) in enumerate(steps, 1):
            progress.advance(task)
            if not console.is_terminal:
                seconds_left = (time.monotonic() - start) / index * (num_left - index)
                print(f"{index}/{num_left} {line} ({seconds_left:.0f} s left)", flush=True)
            elif has_failed:
                progress.console.print(line, markup=False, highlight=False)
    _write_report(report, outputs, tuple(supports.classes))
    print(f"{len(report.records)} of {len(outputs.queries)} images segmented into {outputs.folder}")
    if report.num_rows:
        print(f"Look at {outputs.own_file(SHEET_FILE)}")
    return len(report.failures)


def _segment_rest(
    segmenter: Segmenter,
    supports: Supports,
    outputs: Outputs,
    view: RasterOptions,
    done: Mapping[Path, Record],
    journal: Journal,
    report: Report,
) -> Iterator[tuple[bool, str]]:
    """Segment the queries that are not done and note them; give whether one failed, and a line about it."""
    for image, stem in outputs.queries:
        if stem in done:
            report.add(done[stem])
            continue
        try:
            needs_row = report.num_rows < SHEET_ROWS
            record, told = _segment_one(segmenter, supports, image, stem, outputs, view, needs_row)
            journal.add(record)
        except WriteError:
            raise  # nor can the others be written, or what is said of them
        except (KshotError, OSError) as error:
            report.failures.append({"image": str(image), "reason": str(error)})
            yield True, f"{image}: failed: {error}"
        else:
            report.add(record)
            yield False, f"{image}: {told}"


def _segment_one(
    segmenter: Segmenter,
    supports: Supports,
    image: Path,
    stem: Path,
    outputs: Outputs,
    view: RasterOptions,
    needs_row: bool,
) -> tuple[Record, str]:
    """Segment one query and write its files; return its record, and what was found."""
    state, names = state_of(image), tuple(supports.classes)
    if (kind := file_type(image)) == "image":
        picture = read_image(image)
        result = segmenter.predict(picture)
        answer = Summary(picture, result, result.shares, result.confidence)
    else:
        segment = segment_map if kind == "geotiff" else segment_scan
        place = outputs.folder / stem
        answer = segment(segmenter, image, place, names, view, "probability" in outputs.also)
    row = None
    if needs_row:  # first, for what is written is drawn on the picture
        row = pack_row(sheet_row(supports.picture, answer.image, answer.result))
    coco = _write_picture(image, stem, answer, outputs, names) if kind == "image" else None
    record = Record(str(image), stem.as_posix(), state, answer.confidence, coco, row)
    return record, f"{_told(answer.shares)}, confidence {answer.confidence:.2f}"


def _write_picture(
    image: Path, stem: Path, answer: Summary, outputs: Outputs, names: tuple[str, ...]
) -> dict[str, Any] | None:
    """Write a photograph's files; return its part of the COCO document, if there will be one."""
    outputs.write(stem, answer.image, answer.result)
    if not outputs.also & {"coco", "labelme"}:
        return None
    found = segmented((stem.parent / image.name).as_posix(), answer.result)
    if "labelme" in outputs.also:
        outputs.write_labelme(stem, image, found)
    return CocoInstances(names).entry(found) if "coco" in outputs.also else None


def segmented(file_name: str, result: SegmentationResult) -> SegmentedImage:
    """Turn a result into what annotation files are written from."""
    masks = {name: result.labels == label for label, name in enumerate(result.class_names, 1)}
    return SegmentedImage(
        file_name, masks, dict(zip(result.class_names, result.class_probabilities, strict=True))
    )


def _write_report(report: Report, outputs: Outputs, names: tuple[str, ...]) -> None:
    if report.records:
        shown = [record for record in report.records if record.row is not None][:SHEET_ROWS]
        shown.sort(key=attrgetter("confidence"))
        rows = [unpack_row(record.row) for record in shown if record.row is not None]
        titles = [f"{Path(one.image).name}, confidence {one.confidence:.2f}" for one in shown]
        if rows:
            save_image(contact_sheet(rows, CELL, titles), outputs.own_file(SHEET_FILE))
        write_text(_confidence_table(report.records), outputs.own_file(CONFIDENCE_FILE))
    if "coco" in outputs.also:
        instances = CocoInstances(names)
        for record in report.records:
            if record.coco is not None:
                instances.add_entry(record.coco)
        write_text(json.dumps(instances.document()), outputs.own_file(INSTANCES_FILE))
    failures = outputs.own_file(FAILURES_FILE)
    failures.unlink(missing_ok=True)  # an earlier run's failures are not this one's
    if report.failures:
        write_text("".join(json.dumps(failure) + "\n" for failure in report.failures), failures)


def _confidence_table(records: Sequence[Record]) -> str:
    """Write one line an image, the least sure first: what a person should look at first."""
    table = StringIO()
    # Names are quoted, all of them: a carriage return in one would else end the line, before Python 3.13.
    writer = csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["image", "confidence"])
    least_sure_first = sorted(records, key=attrgetter("confidence"))
    writer.writerows((record.image, round(record.confidence, 4)) for record in least_sure_first)
    return table.getvalue()


def sheet_row(support: Image.Image, query: Image.Image, result: SegmentationResult) -> SheetRow:
    """Lay out one query for the contact sheet: support, query, the steps that the method has, result.

    Of several classes the steps are their probabilities, unless there are many.
    """
    if len(result.class_names) > 1:
        steps = dict(zip(result.class_names, result.class_probabilities, strict=True))
        steps = steps if len(steps) <= MAX_HEATMAPS else {}
    elif result.first_pass is None:
        steps = {"probability": result.probability}
    else:
        passes = {"first pass": result.first_pass, "second pass": result.second_pass}
        steps = {caption: step for caption, step in passes.items() if step is not None}
    # Shrunk first: the sheet is laid out at the end, and whole photographs are large to keep.
    small, detailed = (ImageOps.contain(query, (n * CELL, n * CELL)) for n in (1, 3))

    def shrunk(values: NDArray[Any], size: tuple[int, int], how: Image.Resampling) -> NDArray[Any]:
        step = max(1, min(values.shape) // (4 * CELL))  # a copy of all would take too much memory
        values = values[::step, ::step]
        values = values.astype(np.uint8 if values.dtype == np.bool_ else values.dtype)
        return np.asarray(Image.fromarray(values).resize(size, how))

    labels = shrunk(result.labels, detailed.size, Image.Resampling.NEAREST)
    row = [("support", ImageOps.contain(support, (CELL, CELL))), ("query", small)]
    row += [(name, heatmap(shrunk(step, small.size, Image.Resampling.BOX))) for name, step in steps.items()]
    return [*row, ("result", overlay(detailed, labels).resize(small.size, Image.Resampling.LANCZOS))]


def _told(shares: Mapping[str, float]) -> str:
    """Say how much of the picture each class covers; of many classes, the largest."""
    told = (
        sorted(shares, key=shares.__getitem__, reverse=True)[:MAX_SHARES]
        if len(shares) > MAX_SHARES
        else shares
    )
    return ", ".join(f"{100 * shares[name]:.1f} % {name}" for name in told)
