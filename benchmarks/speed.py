"""Measure the speed of kshot with its kernels, against the plain computation: `make bench`.

    python benchmarks/speed.py [--pairs N] [--only NAME] [--into FILE.md] [--short-into FILE.md]

Run it from the repository's root on an otherwise idle machine. The plain side ("naive") is the same method
under `kernels.disabled()`, one whole forward pass per shot: nothing is encoded once and used twice. Both
sides have the same weights and inputs and run in alternation, first with one thread in processor time, then
with two threads in wall time. Memory is the peak beyond weights and inputs, in a separate process (Linux
only). The floor is the time that kshot's operations take at the machine's rate of large matrix products, in
bf16 if kshot's side uses it. Cases in `benchmarks/results/speed.json` are not measured again, so an
interrupted run can be resumed.
"""

import argparse
import ctypes
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kshot.io.files import write_text
from kshot.io.provenance import record_provenance
from kshot.methods.acceleration import Engine, Precision, accelerate
from kshot.methods.config import ModelConfig
from kshot.methods.saving import build_method
from kshot.methods.two_pass import TwoPass
from kshot.methods.voting import segment_by_vote
from kshot.models import kernels
from kshot.models.kernels.onednn import linear
from kshot.models.losses import training_losses
from kshot.reproduction.table_writers import Cell, Table, insert_between, to_markdown
from kshot.types import Prediction, Support

RESULT = Path("benchmarks/results/speed.json")
BASE_CLASSES = 15
CLOCKED = 3
RATES = {"fp32": "gigaflops", "bf16": "gigaflops_bf16"}
"""Keys of the rates of matrix products in the results."""

SHORT = (
    "1 shot",
    "5 shots",
    "1 shot, fitted",
    "5 shots, fitted",
    "EfficientNet-Lite2, 1 shot",
    "1 shot, OpenVINO, bf16",
    "training step of 2",
)
"""Cases of the short table."""

STEPS = ("cls", "sem", "combined", "second", "final", "base_map")


class Case(NamedTuple):
    """What is timed: segmenting an image from its pixels, or a training step from features."""

    backbone: str = "resnet50"
    size: int = 400
    shots: int = 1
    covered: float = 0.2
    """Share of the support's area that the mask covers."""
    fitted: bool = False
    """Whether kshot has encoded the supports before; the plain side never has."""
    batch: int = 1
    channels: tuple[int, int, int] = (16, 64, 128)
    trains: bool = False
    """Whether to time a step of meta-training."""
    autocast: bool = False
    """Whether kshot's side of a training step runs under bf16 autocast."""
    engine: Engine = "torch"
    precision: Precision = "fp32"


LITE_STEP = Case("efficientnet_lite2", 257, batch=8, channels=(16, 32, 64), trains=True)

CASES = {
    "1 shot": Case(),
    "1 shot, fitted": Case(fitted=True),
    "5 shots": Case(shots=5),
    "5 shots, fitted": Case(shots=5, fitted=True),
    "1 shot, mask 5 %": Case(covered=0.05),
    "1 shot, mask 100 %": Case(covered=1.0),
    "ResNet-101, 1 shot": Case(backbone="resnet101"),
    "ResNet-101, 5 shots, fitted": Case(backbone="resnet101", shots=5, fitted=True),
    "EfficientNet-Lite2, 1 shot": Case(backbone="efficientnet_lite2"),
    "EfficientNet-Lite2, 1 shot, fitted": Case(backbone="efficientnet_lite2", fitted=True),
    "EfficientNet-Lite2, 5 shots, fitted": Case(backbone="efficientnet_lite2", shots=5, fitted=True),
    "1 shot, bf16": Case(precision="bf16"),
    "1 shot, OpenVINO": Case(engine="openvino"),
    "1 shot, OpenVINO, bf16": Case(engine="openvino", precision="bf16"),
    "5 shots, OpenVINO, bf16": Case(shots=5, engine="openvino", precision="bf16"),
    "1 shot, fitted, OpenVINO": Case(fitted=True, engine="openvino"),
    "1 shot, fitted, OpenVINO, bf16": Case(fitted=True, engine="openvino", precision="bf16"),
    "EfficientNet-Lite2, 1 shot, OpenVINO": Case("efficientnet_lite2", engine="openvino"),
    "EfficientNet-Lite2, 1 shot, OpenVINO, bf16": Case(
        "efficientnet_lite2", engine="openvino", precision="bf16"
    ),
    "batch of 8, 256 px": Case(batch=8, size=256),
    "training step of 2": Case(batch=2, trains=True),
    "training step of 8, 256 px": Case(batch=8, size=256, trains=True),
    "training step, recipe lite": LITE_STEP,
    "the same, bf16": LITE_STEP._replace(autocast=True),
}


def count_linear(rows: Sequence[int], matrix: Sequence[int], *_: Any, **__: Any) -> int:
    """Return the operations of a product of rows (..., C) and a matrix (N, C)."""
    return 2 * math.prod(rows) * matrix[0]


def count_gradients(of_output: Sequence[int], _: Any, kernel: Sequence[int], *rest: Any, **__: Any) -> int:
    """Return the operations of a convolution's gradients, of its input and its kernel (O, C, k, k)."""
    output_mask = rest[-1]
    return 2 * math.prod(of_output) * math.prod(kernel[1:]) * sum(output_mask[:2])


COUNTS = {torch.ops.aten.mkldnn_linear: count_linear, torch.ops.aten.convolution_backward: count_gradients}
"""Operators that torch's counter does not know, or counts wrongly with groups."""


class Inputs(NamedTuple):
    """Images (B, 3, H, W) and (B, K, 3, H, W), masks (B, K, 1, H, W), the query's ground truth (B, H, W)."""

    query: Tensor
    supports: Tensor
    masks: Tensor
    ground_truth: Tensor


class Sides(NamedTuple):
    """The two computations of a case."""

    naive: Callable[[], list[Prediction]]
    kshot: Callable[[], list[Prediction]]


def main() -> None:
    """Measure the missing cases, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--only", choices=CASES, help="one case; default all")
    parser.add_argument("--into", type=Path, help="Put the table between its markers in this document")
    parser.add_argument("--short-into", type=Path, help="Put a short table between its markers in this one")
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in CASES if options.only is None else [options.only]:
        if name not in found.get("cases", {}):
            found["provenance"] = record_provenance([]).model_dump() | {"command": "make bench"}
            found |= {rate: matmul_rate(p) / 1e9 for p, rate in RATES.items() if rate not in found}
            rate = found[RATES[CASES[name].precision]] * 1e9
            found.setdefault("cases", {})[name] = measure(CASES[name], options.pairs, rate)
            write_text(json.dumps(found, indent=2) + "\n", RESULT)
            print(name, json.dumps(found["cases"][name]), flush=True)
    text = to_markdown(table(found))
    if options.into is None:
        print(text)
    else:
        write_text(insert_between(options.into.read_text(), "table-speed", text), options.into)
    if options.short_into is not None:
        text = to_markdown(short_table(found))
        write_text(
            insert_between(options.short_into.read_text(), "table-speed-short", text), options.short_into
        )


def measure(case: Case, pairs: int, rate: float) -> dict[str, float]:
    """Return the times of both sides of a case in seconds, and their memory in MiB."""
    torch.set_num_threads(1)
    method, inputs = prepare(case)
    sides = arrange(case, method, inputs)
    difference = largest_difference(sides)
    countable = case._replace(engine="torch", precision="fp32")  # torch counts only its own operations
    counted = arrange(countable, method, inputs).kshot
    with FlopCounterMode(display=False, custom_mapping=COUNTS) as counter:
        counted()
    cpu = alternate(sides, pairs, time.process_time)
    torch.set_num_threads(2)
    clock = alternate(sides, CLOCKED, time.perf_counter)
    torch.set_num_threads(1)
    (naive, ours), (naive_clock, ours_clock) = cpu, clock
    return {
        "pairs": pairs,
        "naive": statistics.median(naive),
        "kshot": statistics.median(ours),
        "ratio": statistics.median(n / k for n, k in zip(naive, ours, strict=True)),
        "naive_best": min(naive),
        "kshot_best": min(ours),
        "naive_two_threads": statistics.median(naive_clock),
        "kshot_two_threads": statistics.median(ours_clock),
        "naive_memory": peak_memory(case, "naive"),
        "kshot_memory": peak_memory(case, "kshot"),
        "floor": counter.get_total_flops() / rate,
        "largest_difference": difference,
    }


def prepare(case: Case) -> tuple[TwoPass, Inputs]:
    """Return a case's model, with random weights, and its inputs."""
    torch.manual_seed(0)
    config = ModelConfig(
        method="two-pass",
        backbone=case.backbone,
        channels=case.channels,
        base_classes=tuple(map(str, range(BASE_CLASSES))),
        image_size=case.size,
    )
    method = build_method(config).train(case.trains)
    assert isinstance(method, TwoPass)
    side = round(case.size * case.covered**0.5)
    start = (case.size - side) // 2
    masks = torch.zeros(case.batch, case.shots, 1, case.size, case.size)
    masks[..., start : start + side, start : start + side] = 1
    images = torch.rand(case.batch, 1 + case.shots, 3, case.size, case.size)
    ground_truth = (torch.rand(case.batch, case.size, case.size) < case.covered).long()
    return method, Inputs(images[:, 0], images[:, 1:], masks, ground_truth)


def arrange(case: Case, method: TwoPass, inputs: Inputs) -> Sides:
    """Return the two computations of a case."""
    if case.trains:
        return arrange_step(case, method, inputs)
    fast = accelerate(method, case.engine, case.precision, torch.device("cpu")) or method
    shots = list(zip(inputs.supports.unbind(1), inputs.masks.unbind(1), strict=True))

    def fit() -> list[Support]:
        return [Support(fast.support_features(image), mask) for image, mask in shots]

    with torch.inference_mode():
        fitted = fit() if case.fitted else None

    @torch.inference_mode()
    def naive() -> list[Prediction]:
        with kernels.disabled():
            predictions = [
                method.match(method.features(inputs.query), Support(method.support_features(image), mask))
                for image, mask in shots
            ]
            segment_by_vote(predictions, (case.size, case.size), method.threshold)
        return predictions

    @torch.inference_mode()
    def kshot() -> list[Prediction]:
        features = fast.features(inputs.query)
        predictions = fast.match_each(features, fit() if fitted is None else fitted)
        segment_by_vote(predictions, (case.size, case.size), method.threshold)
        return predictions

    return Sides(naive, kshot)


def arrange_step(case: Case, method: TwoPass, inputs: Inputs) -> Sides:
    """Return the two computations of a training step, on encoded images."""
    learned = [weight for weight in method.parameters() if weight.requires_grad]
    with torch.no_grad():
        query = method.features(inputs.query)
        support = Support(method.features(inputs.supports[:, 0]), inputs.masks[:, 0])
    episode_class = torch.arange(case.batch) % BASE_CLASSES

    def step(autocast: bool = False) -> list[Prediction]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            prediction = method.match(query, support, episode_class)
        torch.autograd.grad(sum(training_losses(prediction, inputs.ground_truth).values()), learned)
        return [prediction]

    def naive() -> list[Prediction]:
        with kernels.disabled():
            return step()

    return Sides(naive, lambda: step(case.autocast))


def largest_difference(sides: Sides) -> float:
    """Return the largest difference of any step's logits, or of the base map, in any shot."""
    pairs = zip(sides.naive(), sides.kshot(), strict=True)
    return max(
        float((getattr(naive, step) - getattr(kshot, step)).detach().abs().max())
        for naive, kshot in pairs
        for step in STEPS
    )


def alternate(sides: Sides, pairs: int, clock: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Return the times of both sides, run in turn."""
    both: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for times, run in zip(both, sides, strict=True):
            start = clock()
            run()
            times.append(clock() - start)
    return both


def peak_memory(case: Case, side: str) -> float:
    """Return the peak memory of one side in MiB, measured in a separate process."""
    return in_own_process(_peak_memory, case, side)


def in_own_process(measure: Callable[..., float], *arguments: Any) -> float:
    """Call a function in a separate process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _peak_memory(case: Case, side: str) -> float:
    torch.set_num_threads(1)
    method, inputs = prepare(case)
    return take_peak(getattr(arrange(case, method, inputs), side))


def take_peak(run: Callable[[], Any]) -> float:
    """Run a function and return by how many MiB this process's peak memory exceeded its memory before."""
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that is used again would not be counted
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = memory("VmRSS")
    run()
    return memory("VmHWM") - before


def memory(field: str) -> float:
    """Return a memory field of /proc/self/status, in MiB."""
    # Not getrusage: its maximum starts at that of the parent process.
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def matmul_rate(precision: Precision) -> float:
    """Return the operations per second of large matrix products with one thread, the best of several runs."""
    torch.set_num_threads(1)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    matrix, times = torch.rand(2048, 2048).to(dtype), []
    for _ in range(7):
        start = time.process_time()
        linear(matrix, matrix)
        times.append(time.process_time() - start)
    return 2 * 2048**3 / min(times)


def table(found: dict[str, Any]) -> Table:
    """Return the table of all cases."""
    head = ("naive", "kshot", "ratio", "floor")
    columns = [("", "Case"), *(("", name) for name in head), ("2 threads", "naive"), ("2 threads", "kshot")]
    columns += [("MB", "naive"), ("MB", "kshot"), ("", "Δ")]
    rows = []
    for name in CASES:
        if (one := found["cases"].get(name)) is None:
            continue
        seconds = [f"{one[key]:.2f} s" for key in ("naive", "kshot")]
        clocked = [f"{one[key]:.2f} s" for key in ("naive_two_threads", "kshot_two_threads")]
        memory = [f"{one[key]:.0f}" for key in ("naive_memory", "kshot_memory")]
        ratio = f"**{one['ratio']:.1f} x**"
        cells = [
            label(name),
            *seconds,
            ratio,
            f"{one['floor']:.2f} s",
            *clocked,
            *memory,
        ]
        rows.append(tuple(Cell(text) for text in [*cells, f"{one['largest_difference']:.0e}"]))
    machine = found["provenance"]["machine"]
    return Table(
        "The two-pass method, computed plainly and by kshot",
        tuple(columns),
        tuple(rows),
        (
            f"{machine}; PyTorch {found['provenance']['versions']['torch']}, eager, fp32 unless said; random "
            "weights. 400 px and a mask of 20 % unless said.",
            "naive and kshot: processor seconds, one thread, medians; ratio: median of the pairs' ratios. "
            "2 threads: seconds of the clock.",
            f"floor: kshot's operations at {rates(found)}, this machine's rate of large "
            "matrix products. MB: at the peak, beyond weights and what is given, MiB. "
            "Δ: the largest difference of logits, and of the base map.",
        ),
        num_texts=1,
    )


def short_table(found: dict[str, Any]) -> Table:
    """Return the table of the cases in SHORT."""
    rows = []
    for name in SHORT:
        one = found["cases"][name]
        cells = label(name), f"{one['naive']:.1f} s", f"{one['kshot']:.1f} s", f"**{one['ratio']:.1f} x**"
        rows.append(tuple(Cell(text) for text in cells))
    return Table(
        "The same numbers, computed as the papers say it and by kshot",
        tuple(("", name) for name in ("Case", "plainly", "kshot", "ratio")),
        tuple(rows),
        (
            f"{found['provenance']['machine']}; processor seconds, one thread; 400 px, masks of 20 %. "
            "bf16 is for those who ask, and nearly the same numbers; all else is fp32.",
        ),
        num_texts=1,
    )


def label(name: str) -> str:
    """Return a case's name with its backbone."""
    return name if CASES[name].backbone != "resnet50" or "ResNet" in name else f"ResNet-50, {name}"


def rates(found: dict[str, Any]) -> str:
    """Return the machine's rate of matrix products in each measured precision, as text."""
    fp32 = f"{found['gigaflops']:.0f} Gflop/s"
    return f"{fp32} ({found[bf16]:.0f} in bf16)" if (bf16 := RATES["bf16"]) in found else fp32


if __name__ == "__main__":
    main()
