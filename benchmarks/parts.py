"""Measure what each kernel contributes to kshot's speed, and what rejected ideas would: `make bench`.

    python benchmarks/parts.py [--pairs N] [--into FILE.md]

Run it from the repository's root on an otherwise idle machine. One image is segmented from its pixels, with
a ResNet-50, one support at 400 px and a mask of 20 %, by kshot as it is and with one part removed or one
rejected idea added: in alternation, with one thread, in processor time. Memory is the peak beyond weights and
inputs, in a separate process (Linux only).
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
from speed import Case, Sides, alternate, arrange, in_own_process, largest_difference, prepare, take_peak
from torch import Tensor, nn
from torch.nn import functional as F

from kshot.io.files import write_text
from kshot.io.provenance import record_provenance
from kshot.models import kernels
from kshot.models.backbones import Backbone
from kshot.models.base_learner import PyramidPoolingHead
from kshot.models.kernels import matching, pooling
from kshot.models.kernels.matching import Box
from kshot.models.kernels.onednn import PackedLinear, PointwiseConv2d
from kshot.reproduction.table_writers import Cell, Table, insert_between, to_markdown
from kshot.types import Prediction

RESULT = Path("benchmarks/results/parts.json")
CASE = Case()


class PlainLinear:
    """A matrix (N, C) that torch multiplies in its own way."""

    def __init__(self, weight_NC: Tensor) -> None:
        self._weight_NC = weight_NC

    def __call__(self, rows_XC: Tensor) -> Tensor:
        """Return rows @ weight.T, (X, N)."""
        return rows_XC @ self._weight_NC.T


def whole_support(masks_KLUV: Tensor) -> Box:
    """Return the whole support as the box of any masks."""
    return Box(0, masks_KLUV.shape[2], 0, masks_KLUV.shape[3])


def classify_plainly(self: PyramidPoolingHead, features: Tensor) -> Tensor:
    """Classify features as H_cls does without its kernel."""
    with kernels.disabled():
        return FORWARD(self, features)


PARTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "Products by oneDNN": lambda: patch.multiple(matching, PackedLinear=PlainLinear, linear=F.linear),
    "1x1 convolutions by oneDNN": lambda: patch.object(
        PointwiseConv2d, "_conv_forward", nn.Conv2d._conv_forward
    ),
    "Channels last in backbones": lambda: patch.object(
        kernels, "memory_format", lambda: torch.contiguous_format
    ),
    "Supports read undilated": lambda: patch.object(Backbone, "support_pyramid", Backbone.forward),
    "H_cls pooled before it is made large": lambda: patch.object(
        PyramidPoolingHead, "forward", classify_plainly
    ),
    "Only the masks' boxes": lambda: patch.object(matching, "mask_box", whole_support),
    "The volume piece by piece": lambda: patch.dict(matching.CHUNK_SIZE, cpu=2**62),
    "Dense products on 2x2 supports": lambda: patch.object(matching, "MAX_DENSE_POSITIONS", 0),
}
"""Context managers that remove each part."""


def by_winograd(self: PyramidPoolingHead, features: Tensor) -> Tensor:
    """Classify features as H_cls does, with its largest convolution by Winograd's algorithm."""
    if self not in _TRANSFORMED:
        kernel = cast(nn.Conv2d, self.classify[0]).weight
        _TRANSFORMED[self] = winograd.transform(kernel[:, : features.shape[1]])

    def convolve(maps: Tensor, kernel: Tensor, **options: Any) -> Tensor:
        if maps is features:
            return winograd.convolve(maps, _TRANSFORMED[self])
        return F.conv2d(maps, kernel, **options)

    with patch.object(pooling, "F", SimpleNamespace(conv2d=convolve, pad=F.pad)):
        return FORWARD(self, features)


FORWARD = PyramidPoolingHead.forward
_TRANSFORMED: dict[PyramidPoolingHead, list[PackedLinear]] = {}

TRIED: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "H_cls by Winograd's way": lambda: patch.object(PyramidPoolingHead, "forward", by_winograd),
    "No batch norms at all, as though folding them cost nothing": lambda: patch.object(
        nn.BatchNorm2d, "forward", lambda self, maps: maps
    ),
}
"""Context managers that add each rejected idea."""


def main() -> None:
    """Measure all parts, and write the tables."""
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
    """Return `run` without one part, or with a rejected idea."""

    def changed() -> list[Prediction]:
        with (PARTS | TRIED)[name]():
            return run()

    return changed


def measure(name: str, pairs: int) -> dict[str, float]:
    """Return the times of kshot changed and as it is in seconds, and the memory of the former in MiB."""
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
    """Return kshot's peak memory in MiB, changed or as it is (None), measured in a separate process."""
    return in_own_process(_peak_memory, name)


def _peak_memory(name: str | None) -> float:
    torch.set_num_threads(1)
    run = arrange(CASE, *prepare(CASE)).kshot
    return take_peak(run if name is None else otherwise(name, run))


def parts_table(found: dict[str, Any]) -> Table:
    """Return the table of the parts."""
    title = "What each part is worth: a ResNet-50, one support at 400 px, a mask of 20 %"
    return _table(found, title, PARTS, ("Part", "without it", "with all"))


def tried_table(found: dict[str, Any]) -> Table:
    """Return the table of rejected ideas."""
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
