"""What is each part of kshot's speed worth, and what would others be? `make bench`, after the main table.

    python benchmarks/parts.py [--pairs N] [--into FILE.md]

Run it from the repository's root. One image is segmented from its pixels on, with a ResNet-50, one support at
400 px and a mask of 20 %, by kshot as it is and with one part left out, or one added that was tried: in
alternation, with one thread, in processor time. Memory is what each takes at its peak beyond weights and what
is given, in a process of its own (Linux only). Nothing else may run meanwhile.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
import winograd
from naive import classify
from speed import Case, Sides, alone, alternate, arrange, largest_difference, prepare, take_peak
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.io.files import write_text
from kshot.io.provenance import record_provenance
from kshot.models import base_learner, conv4d
from kshot.models.backbones import Backbone
from kshot.models.base_learner import PyramidPoolingHead
from kshot.models.hypercorrelation import Box, Correlation
from kshot.models.kernels.onednn import Factor, PointwiseConv2d
from kshot.reproduction.table_writers import Cell, Table, insert_between, to_markdown
from kshot.types import Prediction

RESULT = Path("benchmarks/results/parts.json")
CASE = Case()


class PlainFactor:
    """A matrix (N, C) that torch multiplies as it always does."""

    def __init__(self, rows_NC: Tensor) -> None:
        self._rows_NC = rows_NC

    def times(self, rows_XC: Tensor) -> Tensor:
        """Multiply each row of the one by each of the other: (X, N)."""
        return rows_XC @ self._rows_NC.T


def everything(self: Correlation, number: int) -> Box:
    """Take all of a support, whatever its masks leave."""
    return Box(0, self.support_size[0], 0, self.support_size[1])


PARTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "Products by oneDNN": lambda: patch.multiple(conv4d, Factor=PlainFactor, linear=F.linear),
    "1x1 convolutions by oneDNN": lambda: patch.object(
        PointwiseConv2d, "_conv_forward", nn.Conv2d._conv_forward
    ),
    "Channels last in backbones": lambda: patch.object(Backbone, "memory_format", torch.contiguous_format),
    "Supports read undilated": lambda: patch.object(Backbone, "support_pyramid", Backbone.forward),
    "H_cls pooled before it is made large": lambda: patch.object(PyramidPoolingHead, "forward", classify),
    "Only the masks' boxes": lambda: patch.object(Correlation, "box", everything),
    "The volume piece by piece": lambda: patch.dict(conv4d.CHUNK, cpu=2**62),
    "Dense products on 2x2 supports": lambda: patch.object(conv4d, "DENSE_POSITIONS", 0),
}
"""What undoes each part while it lasts."""


def by_winograd(self: PyramidPoolingHead, features: Tensor) -> Tensor:
    """Classify features as H_cls does, its largest convolution computed by Winograd's way."""
    if self not in _TRANSFORMED:
        kernel = cast(nn.Conv2d, self.classify[0]).weight
        _TRANSFORMED[self] = winograd.transform(kernel[:, : features.shape[1]])

    def convolve(maps: Tensor, kernel: Tensor, **options: Any) -> Tensor:
        if maps is features:
            return winograd.convolve(maps, _TRANSFORMED[self])
        return F.conv2d(maps, kernel, **options)

    with patch.object(base_learner, "F", SimpleNamespace(conv2d=convolve, pad=F.pad)):
        return FORWARD(self, features)


FORWARD = PyramidPoolingHead.forward
_TRANSFORMED: dict[PyramidPoolingHead, list[Factor]] = {}

TRIED: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "H_cls by Winograd's way": lambda: patch.object(PyramidPoolingHead, "forward", by_winograd),
    "No batch norms at all, as though folding them cost nothing": lambda: patch.object(
        nn.BatchNorm2d, "forward", lambda self, maps: maps
    ),
}
"""What adds each of what was left out, while it lasts."""


def main() -> None:
    """Measure all parts, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--into", type=Path, help="Put the table between its markers in this document")
    options = parser.parse_args()
    found: dict[str, Any] = {"provenance": record_provenance([]).model_dump() | {"command": "make bench"}}
    found |= {"memory": peak_memory(None), "pairs": options.pairs, "parts": {}}
    for name in PARTS | TRIED:
        found["parts"][name] = measure(name, options.pairs)
        print(name, json.dumps(found["parts"][name]), flush=True)
    write_text(json.dumps(found, indent=2) + "\n", RESULT)
    texts = {name: to_markdown(make(found)) for name, make in TABLES.items()}
    if options.into is None:
        print(*texts.values(), sep="\n")
        return
    document = options.into.read_text()
    for name, text in texts.items():
        document = insert_between(document, name, text)
    write_text(document, options.into)


def otherwise(name: str, run: Callable[[], list[Prediction]]) -> Callable[[], list[Prediction]]:
    """Run without one part, or with another."""

    def run_so() -> list[Prediction]:
        with (PARTS | TRIED)[name]():
            return run()

    return run_so


def measure(name: str, pairs: int) -> dict[str, float]:
    """Time kshot without a part, or with another, and as it is, in seconds; memory in MiB."""
    torch.set_num_threads(1)
    whole = arrange(CASE, *prepare(CASE)).kshot
    sides = Sides(otherwise(name, whole), whole)
    difference = largest_difference(sides)
    otherwise_seconds, seconds = alternate(sides, pairs, time.process_time)
    return {
        "otherwise": statistics.median(otherwise_seconds),
        "as_it_is": statistics.median(seconds),
        "ratio": statistics.median(
            one / other for one, other in zip(otherwise_seconds, seconds, strict=True)
        ),
        "memory": peak_memory(name),
        "largest_difference": difference,
    }


def peak_memory(name: str | None) -> float:
    """Give the most memory that kshot takes without a part, or with all, in a process of its own."""
    return alone(_peak_memory, name)


def _peak_memory(name: str | None) -> float:
    torch.set_num_threads(1)
    run = arrange(CASE, *prepare(CASE)).kshot
    return take_peak(run if name is None else otherwise(name, run))


def parts_table(found: dict[str, Any]) -> Table:
    """Lay out what the parts are worth."""
    title = "What each part is worth: a ResNet-50, one support at 400 px, a mask of 20 %"
    return _table(found, title, PARTS, ("Part", "without it", "with all"))


def tried_table(found: dict[str, Any]) -> Table:
    """Lay out what others would be worth."""
    return _table(found, "What was tried and left out: the same image", TRIED, ("Part", "with it", "without"))


TABLES = {"table-parts": parts_table, "table-tried": tried_table}


def _table(found: dict[str, Any], title: str, names: Iterable[str], head: tuple[str, ...]) -> Table:
    rows = []
    for name in names:
        one = found["parts"][name]
        cells = (
            name,
            f"{one['otherwise']:.2f} s",
            f"{one['as_it_is']:.2f} s",
            f"**{one['ratio']:.2f} x**",
            f"{one['memory'] - found['memory']:+.0f}",
            f"{one['largest_difference']:.0e}",
        )
        rows.append(tuple(Cell(text) for text in cells))
    machine, torchs = found["provenance"]["machine"], found["provenance"]["versions"]["torch"]
    return Table(
        title,
        tuple(("", name) for name in (*head, "ratio", "MB", "Δ")),
        tuple(rows),
        (
            f"{machine}; PyTorch {torchs}, eager, fp32; random weights; processor seconds, one thread, "
            f"medians of {found['pairs']} pairs.",
            f"MB: more or less, at the peak, than the {found['memory']:.0f} MiB that kshot takes as it is. "
            "Δ: the largest difference of logits, and of the base map.",
        ),
        num_texts=1,
    )


if __name__ == "__main__":
    main()
