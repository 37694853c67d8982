"""Segment many images: what the `segment` command does once the supports are read."""

import csv
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console

from kshot.annotations.documents import Instances, Segmented, check_libraries, labelme_document
from kshot.annotations.json_files import read_json
from kshot.errors import KshotError
from kshot.images import read_image
from kshot.pictures import (
    Row,
    contact_sheet,
    heatmap,
    label_picture,
    mask_picture,
    overlay,
    replacing,
    save_picture,
    tint,
    write_text,
)
from kshot.progress import make_bar
from kshot.rasters.answer import Answer, Tally
from kshot.rasters.kinds import kind_of
from kshot.rasters.queries import list_queries
from kshot.rasters.segment_map import segment_map
from kshot.rasters.segment_scan import segment_scan
from kshot.rasters.view import View
from kshot.segmenter import Explanation, LabelExplanation, LabelMap, LabelSegmenter, Segmenter
from kshot.supports import CELL, Supports

SHEET_ROWS = 12
"""Queries on the contact sheet: the first ones, so that thousands don't make one huge picture."""

CLASSES_FILE = "classes.json"
"""Each class's label, in the results' folder, if there are several."""

INSTANCES_FILE = "instances.json"
"""All answers in COCO's format, in the results' folder, if that is asked for."""

CONFIDENCE_FILE = "confidence.csv"
"""Each image's confidence, the least sure first, in the results' folder."""

ALSO = ("probability", "coco", "labelme")
"""What can be written beside masks, overlays and the contact sheet."""

MAX_SHARES = 6
"""Classes whose shares of a picture are printed."""

MAX_HEATMAPS = 4
"""Classes up to which the contact sheet shows each one's probability."""


@dataclass(frozen=True)
class Outputs:
    """Where the results of each query go: `queries` pairs an image with its stem below `folder`."""

    folder: Path
    queries: list[tuple[Path, Path]]
    also: frozenset[str] = frozenset()
    """What is written beside masks and overlays, of ALSO."""

    @classmethod
    def plan(cls, paths: list[Path], folder: Path, also: frozenset[str] = frozenset()) -> "Outputs":
        """List images, maps and scans, and name their results; earlier results, in `folder`, are none.

        Raises ImageError for what does not exist, KshotError for names that collide, for a folder that
        cannot be made or holds the images themselves, and for what cannot be written also.
        """
        if unknown := sorted(also - set(ALSO)):
            raise KshotError(f"--also says '{unknown[0]}'; what can be written also is {', '.join(ALSO)}.")
        if also & {"coco", "labelme"}:
            check_libraries()
        if any(path.resolve() == folder.resolve() for path in paths):
            raise KshotError(
                f"{folder} holds the images, so it can't take the results. Choose another --out."
            )
        queries = _name_results(list_queries(paths, folder), folder)
        if also & {"coco", "labelme"} and (others := [q for q, _ in queries if kind_of(q) != "picture"]):
            raise KshotError(
                f"--also coco,labelme are for photographs, and {others[0]} is none. Leave them out: the mask "
                "of a map or a scan knows where it lies."
            )
        taken = {Path(name).with_suffix("") for name in (CLASSES_FILE, INSTANCES_FILE)}
        if "labelme" in also and (clash := [image for image, stem in queries if stem in taken]):
            raise KshotError(f"{clash[0]} has a name that the results need for another file. Rename it.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KshotError(f"Folder {folder} cannot be made: {error.strerror}.") from error
        return cls(folder, queries, also)

    @property
    def holds_maps(self) -> bool:
        """Whether there are maps among the queries."""
        return any(kind_of(image) == "map" for image, _ in self.queries)

    def number(self, class_names: Sequence[str]) -> None:
        """Write down each class's label, if there are several.

        Raises KshotError if an earlier run's answers here are for other classes: they would seem to be new.
        """
        numbers = {name: label for label, name in enumerate(class_names, 1)} if len(class_names) > 1 else {}
        path = self.folder / CLASSES_FILE
        masks = (self.folder / f"{stem}_mask.png" for _, stem in self.queries)
        if (path.exists() and read_json(path) != numbers) or (numbers and any(m.exists() for m in masks)):
            raise KshotError(
                f"{self.folder} holds an earlier run's results for other classes, and the new ones would lie "
                "among them. Choose another --out, or delete that folder."
            )
        if numbers:
            write_text(json.dumps(numbers, indent=2) + "\n", path)

    def write(self, stem: Path, picture: Image.Image, explanation: Explanation | LabelExplanation) -> None:
        """Write one query's mask or labels, overlay and, if wanted, probability; draws on the picture."""
        place = self.folder / stem
        if isinstance(explanation, LabelExplanation):
            answer, kind = label_picture(explanation.labels), "labels"
            probability = np.stack([one.fused for one in explanation.classes.values()])
        else:
            answer, kind = mask_picture(explanation.mask), "mask"
            probability = explanation.fused
        save_picture(answer, place.with_name(f"{stem.name}_{kind}.png"))
        tint(picture, labels_of(explanation))
        save_picture(picture, place.with_name(f"{stem.name}_overlay.png"))
        if "probability" in self.also:
            with replacing(place.with_name(f"{stem.name}_probability.npy")) as temporary:
                np.save(temporary, probability.astype(np.float16))

    def write_labelme(self, stem: Path, image: Path, answer: Segmented) -> None:
        """Write one query's LabelMe file, which finds its photograph from where it lies."""
        path = self.folder / f"{stem}.json"
        relative = Path(os.path.relpath(image.resolve(), path.parent.resolve())).as_posix()
        write_text(json.dumps(labelme_document(answer._replace(file_name=relative))), path)


def _name_results(images: list[tuple[Path, Path]], folder: Path) -> list[tuple[Path, Path]]:
    """Pair each image with its results' stem; images that differ in their suffix only keep it there."""
    stems = Counter(relative.with_suffix("") for _, relative in set(images))
    named: dict[Path, Path] = {}
    for image, relative in images:
        stem = relative.with_suffix("")
        name = relative if stems[stem] > 1 else stem
        if named.setdefault(name, image) != image:
            raise KshotError(
                f"{named[name]} and {image} would both be written as {folder / name}_mask.png. "
                "Give the folder above them, or run the command once for each."
            )
    return [(image, name) for name, image in named.items()]


@dataclass
class Report:
    """What happened so far: answers, how sure each is, the contact sheet's rows, failures with reasons."""

    instances: Instances
    confidence: dict[Path, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)


def segment_all(
    segmenter: Segmenter | LabelSegmenter, supports: Supports, outputs: Outputs, view: View
) -> int:
    """Segment every query, write its files and the contact sheet; return how many failed.

    A bad image is noted in `failures.jsonl` and does not stop the others.
    """
    console, report, start = Console(), Report(Instances(tuple(supports.classes))), time.monotonic()
    outputs.number(tuple(supports.classes))
    with make_bar(console) as progress:
        task = progress.add_task("Segmenting", total=len(outputs.queries))
        for index, (image, stem) in enumerate(outputs.queries):
            has_failed, line = _segment_one(segmenter, supports, image, stem, outputs, report, view)
            progress.advance(task)
            if not console.is_terminal:
                rate = (time.monotonic() - start) / (index + 1)
                left = rate * (len(outputs.queries) - index - 1)
                print(f"{index + 1}/{len(outputs.queries)} {line} ({left:.0f} s left)", flush=True)
            elif has_failed:
                progress.console.print(line, markup=False, highlight=False)
    _write_report(report, outputs)
    done = len(outputs.queries) - len(report.failures)
    print(f"{done} of {len(outputs.queries)} images segmented into {outputs.folder}")
    if report.rows:
        print(f"Look at {outputs.folder / 'contact_sheet.png'}")
    return len(report.failures)


def _segment_one(
    segmenter: Segmenter | LabelSegmenter,
    supports: Supports,
    image: Path,
    stem: Path,
    outputs: Outputs,
    report: Report,
    view: View,
) -> tuple[bool, str]:
    """Segment one query and note it in the report; return whether it failed, and a line about it."""
    try:
        if (kind := kind_of(image)) == "picture":
            answer = _segment_picture(segmenter, image)
        else:
            segment = segment_map if kind == "map" else segment_scan
            place, names = outputs.folder / stem, tuple(supports.classes)
            answer = segment(segmenter, image, place, names, view, "probability" in outputs.also)
        row = None
        if len(report.rows) < SHEET_ROWS:  # first, for what is written is drawn on the picture
            row = sheet_row(supports.picture, answer.picture, answer.explanation)
        if kind == "picture":
            _write_picture(image, stem, answer, outputs, report)
    except (KshotError, OSError) as error:
        report.failures.append({"image": str(image), "reason": str(error)})
        return True, f"{image}: failed: {error}"
    if row is not None:
        report.rows.append(row)
    report.confidence[image] = answer.confidence
    return False, f"{image}: {_told(answer.shares)}, confidence {answer.confidence:.2f}"


def _segment_picture(segmenter: Segmenter | LabelSegmenter, image: Path) -> Answer:
    picture, tally = read_image(image), Tally()
    explanation = segmenter.explain(picture)
    tally.add(explanation)
    return tally.answer(picture, explanation)


def _write_picture(image: Path, stem: Path, answer: Answer, outputs: Outputs, report: Report) -> None:
    outputs.write(stem, answer.picture, answer.explanation)
    if outputs.also & {"coco", "labelme"}:
        file_name, names = (stem.parent / image.name).as_posix(), tuple(report.instances.categories)
        found = segmented(file_name, answer.explanation, names)
        if "labelme" in outputs.also:
            outputs.write_labelme(stem, image, found)
        if "coco" in outputs.also:
            report.instances.add(found)


def segmented(
    file_name: str, explanation: Explanation | LabelExplanation, class_names: tuple[str, ...]
) -> Segmented:
    """Turn an answer into what annotation files are written from."""
    if isinstance(explanation, Explanation):
        return Segmented(file_name, {class_names[0]: explanation.mask}, {class_names[0]: explanation.fused})
    return Segmented(
        file_name,
        {name: explanation.labels == label for label, name in enumerate(class_names, 1)},
        {name: one.fused for name, one in explanation.classes.items()},
    )


def _write_report(report: Report, outputs: Outputs) -> None:
    if report.rows:
        save_picture(contact_sheet(report.rows, CELL), outputs.folder / "contact_sheet.png")
        write_text(_confidence_table(report.confidence), outputs.folder / CONFIDENCE_FILE)
    if "coco" in outputs.also:
        write_text(json.dumps(report.instances.document()), outputs.folder / INSTANCES_FILE)
    failures = outputs.folder / "failures.jsonl"
    failures.unlink(missing_ok=True)  # an earlier run's failures are not this one's
    if report.failures:
        write_text("".join(json.dumps(failure) + "\n" for failure in report.failures), failures)


def _confidence_table(confidence: dict[Path, float]) -> str:
    """Write one line an image, the least sure first: what a person should look at first."""
    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["image", "confidence"])
    writer.writerows((image, f"{sure:.4f}") for image, sure in sorted(confidence.items(), key=itemgetter(1)))
    return table.getvalue()


def sheet_row(support: Image.Image, query: Image.Image, explanation: Explanation | LabelExplanation) -> Row:
    """Lay out one query for the contact sheet: support, query, the steps that the method has, result.

    Of several classes the steps are their probabilities, unless there are many.
    """
    if isinstance(explanation, LabelExplanation):
        steps = {name: one.fused for name, one in explanation.classes.items()}
        steps = steps if len(steps) <= MAX_HEATMAPS else {}
    elif explanation.first_pass is None:
        steps = {"probability": explanation.fused}
    else:
        passes = {"first pass": explanation.first_pass, "second pass": explanation.second_pass}
        steps = {caption: step for caption, step in passes.items() if step is not None}
    # Shrunk first: the sheet is laid out at the end, and whole photographs are large to keep.
    small, detailed = (ImageOps.contain(query, (n * CELL, n * CELL)) for n in (1, 3))

    def shrunk(values: NDArray[Any], size: tuple[int, int], how: Image.Resampling) -> NDArray[Any]:
        step = max(1, min(values.shape) // (4 * CELL))  # a copy of all would take too much memory
        values = values[::step, ::step]
        values = values.astype(np.uint8 if values.dtype == np.bool_ else values.dtype)
        return np.asarray(Image.fromarray(values).resize(size, how))

    labels = shrunk(labels_of(explanation), detailed.size, Image.Resampling.NEAREST)
    row = [("support", ImageOps.contain(support, (CELL, CELL))), ("query", small)]
    row += [(name, heatmap(shrunk(step, small.size, Image.Resampling.BOX))) for name, step in steps.items()]
    return [*row, ("result", overlay(detailed, labels).resize(small.size, Image.Resampling.LANCZOS))]


def labels_of(explanation: Explanation | LabelExplanation) -> NDArray[np.bool_] | LabelMap:
    """Give the answer itself: the mask, or the labels."""
    return explanation.labels if isinstance(explanation, LabelExplanation) else explanation.mask


def _told(shares: Mapping[str, float]) -> str:
    """Say how much of the picture each class covers; of many classes, the largest."""
    told = (
        sorted(shares, key=shares.__getitem__, reverse=True)[:MAX_SHARES]
        if len(shares) > MAX_SHARES
        else shares
    )
    return ", ".join(f"{100 * shares[name]:.1f} % {name}" for name in told)
