"""Segment many images and report on them: what `kshot segment` does once the support set is read."""

import csv
import json
import logging
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

from kshot.errors import WriteError, failure_reason
from kshot.io.files import save_image, write_text
from kshot.io.filetypes import file_type
from kshot.io.images import read_image
from kshot.io.overlays import SheetRow, contact_sheet, heatmap, overlay
from kshot.io.progress import make_bar
from kshot.io.raster_options import RasterOptions
from kshot.predict.outputs import Outputs
from kshot.predict.resume_log import (
    RESUME_LOG_FILE,
    ImageRecord,
    ResumeLog,
    fingerprint,
    pack_row,
    unpack_row,
)
from kshot.predict.stats import Summary
from kshot.predict.support_set import CELL, SupportSet
from kshot.results import SegmentationResult
from kshot.segmenter import Segmenter

logger = logging.getLogger(__name__)

SHEET_ROWS = 12
"""Queries on the contact sheet: the first ones, to keep it small for thousands of images."""

SHEET_FILE = "contact_sheet.png"

FAILURES_FILE = "failures.jsonl"
"""Images that could not be segmented and why, in the results folder."""

CONFIDENCE_FILE = "confidence.csv"
"""The confidence of each image, lowest first, in the results folder."""

MAX_SHARES = 6
"""Classes whose shares of an image are logged."""

MAX_HEATMAPS = 4
"""Classes up to which the contact sheet shows each one's probability."""


@dataclass
class Report:
    """Progress of a run: records of finished images, in order, and failures with their reasons."""

    records: list[ImageRecord] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    num_rows: int = 0
    """Records with a row for the contact sheet."""

    def add(self, record: ImageRecord) -> None:
        """Add a finished image."""
        self.records.append(record)
        self.num_rows += record.row is not None


def segment_all(
    segmenter: Segmenter,
    support_set: SupportSet,
    outputs: Outputs,
    raster_options: RasterOptions,
    *,
    strict: bool = False,
) -> int:
    """Segment every query, write its files and the contact sheet; return the number of failures.

    Images that the folder's resume log has as done are reported, but not segmented again. An image that
    raises any exception is listed in `failures.jsonl`, and the run continues, or stops there if `strict`.
    Raises WriteError for a full disk.
    """
    console, report = Console(), Report()
    resume_log = ResumeLog(outputs.shard_path(RESUME_LOG_FILE))
    class_names = tuple(support_set.classes)
    done = outputs.find_done(resume_log.read(), "labels" if len(class_names) > 1 else "mask")
    num_left = len(outputs.queries) - len(done)
    if done:
        logger.info(f"{len(done)} of {len(outputs.queries)} images were already done")
    steps = _segment_rest(segmenter, support_set, outputs, raster_options, done, resume_log, report)
    start = time.monotonic()
    with make_bar(console) as progress:
        task = progress.add_task("Segmenting", total=num_left)
        for index, (has_failed, line) in enumerate(steps, 1):
            progress.advance(task)
            if not console.is_terminal:
                seconds_left = (time.monotonic() - start) / index * (num_left - index)
                logger.info(f"{index}/{num_left} {line} ({seconds_left:.0f} s left)")
            elif has_failed:
                logger.info(line)  # above the bar, which takes over stdout
            if strict and has_failed:
                break
    _write_report(report, outputs, support_set.label_values)
    logger.info(_summary(report, outputs, strict))
    if report.num_rows:
        logger.info(f"Contact sheet: {outputs.shard_path(SHEET_FILE)}")
    return len(report.failures)


def _segment_rest(
    segmenter: Segmenter,
    support_set: SupportSet,
    outputs: Outputs,
    raster_options: RasterOptions,
    done: Mapping[Path, ImageRecord],
    resume_log: ResumeLog,
    report: Report,
) -> Iterator[tuple[bool, str]]:
    """Segment the queries that are not done; yield for each whether it failed, and a line to log."""
    for path, name in outputs.queries:
        if name in done:
            report.add(done[name])
            continue
        try:
            needs_row = report.num_rows < SHEET_ROWS
            record, line = _segment_one(
                segmenter, support_set, path, name, outputs, raster_options, needs_row
            )
            resume_log.add(record)
        except WriteError:
            raise  # disk full: every later write would fail too
        except Exception as error:  # libraries raise anything for a file that they did not expect
            logger.debug("%s", path, exc_info=True)
            reason = failure_reason(error)
            report.failures.append({"image": str(path), "reason": reason})
            yield True, f"{path}: failed: {reason}"
        else:
            report.add(record)
            yield False, f"{path}: {line}"


def _summary(report: Report, outputs: Outputs, strict: bool) -> str:
    """Return the last line of a run."""
    text = f"{len(report.records)} of {len(outputs.queries)} images segmented into {outputs.folder}"
    if not report.failures:
        return text
    listed = outputs.shard_path(FAILURES_FILE)
    if strict:
        return f"{text}; stopped at the first failure (--strict), see {listed}"
    return f"{text}; {len(report.failures)} failed, see {listed}"


def _segment_one(
    segmenter: Segmenter,
    support_set: SupportSet,
    path: Path,
    name: Path,
    outputs: Outputs,
    raster_options: RasterOptions,
    needs_row: bool,
) -> tuple[ImageRecord, str]:
    """Segment one query and write its files; return its record, and a line with what was found."""
    state, class_names = fingerprint(path), tuple(support_set.classes)
    kind = file_type(path)
    if kind == "image":
        image = read_image(path)
        result = segmenter.predict(image)
        summary = Summary(image, result, result.shares, result.confidence)
    else:
        summary = _segment_raster(segmenter, path, name, outputs, class_names, raster_options)
    row = None
    if needs_row:  # before the files are written, because the overlay is drawn on the image
        row = pack_row(sheet_row(support_set.preview, summary.image, summary.result))
    entries = {}
    if kind == "image":
        outputs.write(name, summary.image, summary.result)
        entries = outputs.write_formats(name, path, summary.result)
    record = ImageRecord(str(path), name.as_posix(), state, summary.confidence, entries, row)
    return record, f"{_format_shares(summary.shares)}, confidence {summary.confidence:.2f}"


def _segment_raster(
    segmenter: Segmenter,
    path: Path,
    name: Path,
    outputs: Outputs,
    class_names: Sequence[str],
    raster_options: RasterOptions,
) -> Summary:
    """Segment a GeoTIFF or a volume. Its module is imported here, since most runs have neither."""
    out, with_probability = outputs.folder / name, "probability" in outputs.also
    if file_type(path) == "volume":
        from kshot.predict.segment_volume import segment_volume

        return segment_volume(segmenter, path, out, class_names, raster_options, with_probability)
    from kshot.predict.segment_geotiff import segment_geotiff

    return segment_geotiff(
        segmenter,
        path,
        out,
        class_names,
        raster_options,
        with_probability,
        map_formats=outputs.map_formats,
        instance_options=outputs.instances,
    )


def _write_report(report: Report, outputs: Outputs, class_values: Mapping[str, int]) -> None:
    if report.records:
        shown = [record for record in report.records if record.row is not None][:SHEET_ROWS]
        shown.sort(key=attrgetter("confidence"))
        rows = [unpack_row(record.row) for record in shown if record.row is not None]
        titles = [f"{Path(one.image).name}, confidence {one.confidence:.2f}" for one in shown]
        if rows:
            save_image(contact_sheet(rows, CELL, titles), outputs.shard_path(SHEET_FILE))
        write_text(_confidence_table(report.records), outputs.shard_path(CONFIDENCE_FILE))
    outputs.write_run_files(report.records, class_values)
    failures = outputs.shard_path(FAILURES_FILE)
    failures.unlink(missing_ok=True)  # failures of an earlier run
    if report.failures:
        write_text("".join(json.dumps(failure) + "\n" for failure in report.failures), failures)


def _confidence_table(records: Sequence[ImageRecord]) -> str:
    """Return a CSV table with one line per image, the lowest confidence first."""
    table = StringIO()
    # All names are quoted: before Python 3.13, a carriage return in an unquoted name ends the line.
    writer = csv.writer(table, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["image", "confidence"])
    by_confidence = sorted(records, key=attrgetter("confidence"))
    writer.writerows((record.image, round(record.confidence, 4)) for record in by_confidence)
    return table.getvalue()


def sheet_row(support: Image.Image, query: Image.Image, result: SegmentationResult) -> SheetRow:
    """Return one query's row of the contact sheet: support, query, the method's steps, result.

    With several classes the steps are the classes' probabilities, unless there are more than MAX_HEATMAPS.
    """
    if len(result.class_names) > 1:
        steps = dict(zip(result.class_names, result.class_probabilities, strict=True))
        steps = steps if len(steps) <= MAX_HEATMAPS else {}
    elif result.first_pass is None:
        steps = {"probability": result.probability}
    else:
        passes = {"first pass": result.first_pass, "second pass": result.second_pass}
        steps = {caption: step for caption, step in passes.items() if step is not None}
    # Rows are kept until the end of the run, so images are shrunk now.
    small, detailed = (ImageOps.contain(query, (n * CELL, n * CELL)) for n in (1, 3))

    def shrunk(values: NDArray[Any], size: tuple[int, int], resampling: Image.Resampling) -> NDArray[Any]:
        step = max(1, min(values.shape) // (4 * CELL))  # to save memory: a full copy is large
        values = values[::step, ::step]
        values = values.astype(np.uint8 if values.dtype == np.bool_ else values.dtype)
        return np.asarray(Image.fromarray(values).resize(size, resampling))

    labels = shrunk(result.labels, detailed.size, Image.Resampling.NEAREST)
    row = [("support", ImageOps.contain(support, (CELL, CELL))), ("query", small)]
    row += [(name, heatmap(shrunk(step, small.size, Image.Resampling.BOX))) for name, step in steps.items()]
    return [*row, ("result", overlay(detailed, labels).resize(small.size, Image.Resampling.LANCZOS))]


def _format_shares(shares: Mapping[str, float]) -> str:
    """Return the share of the image that each class covers; of more than MAX_SHARES classes, the largest."""
    names = list(shares)
    if len(names) > MAX_SHARES:
        names = sorted(names, key=shares.__getitem__, reverse=True)[:MAX_SHARES]
    return ", ".join(f"{100 * shares[name]:.1f} % {name}" for name in names)
