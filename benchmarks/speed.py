"""How fast is kshot, against the plain computation of the same numbers? `make bench`.

    python benchmarks/speed.py [--pairs N] [--only NAME] [--into FILE.md] [--short-into FILE.md]

Run it from the repository's root. Each case runs `benchmarks/naive.py` and kshot in alternation, with the
same weights and inputs, in one process with one thread, and takes the processor's time; then with two threads
and the clock. Both run once before, to be compared. Memory is what the computation takes at its peak, beyond
the weights and what is given, in a process that does nothing else (Linux only). The floor is what the
operations of kshot's way cost at the rate at which the machine multiplies large matrices, of bf16 where
kshot's side computes in it. What is in
`benchmarks/results/speed.json` is kept, so that an interrupted run goes on. Nothing else may run meanwhile.
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
from naive import Naive, classify, read
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kshot.io.files import write_text
from kshot.io.provenance import record_provenance
from kshot.methods.config import ModelConfig
from kshot.methods.engine import Accelerated, Engine, Precision
from kshot.methods.hub import build_method
from kshot.methods.two_pass import TwoPass
from kshot.methods.voting import segment_by_vote
from kshot.models.kernels.onednn import linear
from kshot.models.losses import losses
from kshot.reproduction.table_writers import Cell, Table, insert_between, to_markdown
from kshot.types import Prediction, Support

RESULT = Path("benchmarks/results/speed.json")
BASE_CLASSES = 15
CLOCKED = 3
RATES = {"fp32": "gigaflops", "bf16": "gigaflops_bf16"}
"""Where the rates of matrix products are noted."""

SHORT = (
    "1 shot",
    "5 shots",
    "1 shot, fitted",
    "5 shots, fitted",
    "EfficientNet-Lite2, 1 shot",
    "1 shot, OpenVINO, bf16",
    "training step of 2",
)
"""Cases that the short table has."""

STEPS = ("cls", "sem", "combined", "second", "final", "base_map")


class Case(NamedTuple):
    """What is timed: an image segmented from its pixels on, or a training step from features on."""

    backbone: str = "resnet50"
    size: int = 400
    shots: int = 1
    covered: float = 0.2
    """Part of the support's area that the mask covers."""
    fitted: bool = False
    """Whether kshot has read the supports before. The plain computation cannot."""
    batch: int = 1
    channels: tuple[int, int, int] = (16, 64, 128)
    trains: bool = False
    """Whether it is a step of meta-training."""
    autocast: bool = False
    """Whether kshot's side of a training step runs under bf16."""
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
    """Count the operations of a product of rows (..., C) and a matrix (N, C)."""
    return 2 * math.prod(rows) * matrix[0]


def count_gradients(of_output: Sequence[int], _: Any, kernel: Sequence[int], *rest: Any, **__: Any) -> int:
    """Count the operations of a convolution's gradients: its input's and its kernel's (C', C, k, k)."""
    output_mask = rest[-1]
    return 2 * math.prod(of_output) * math.prod(kernel[1:]) * sum(output_mask[:2])


COUNTS = {torch.ops.aten.mkldnn_linear: count_linear, torch.ops.aten.convolution_backward: count_gradients}
"""What torch's counter does not know, or takes for something else where there are groups."""


class Inputs(NamedTuple):
    """Images (B, 3, H, W) and (B, K, 3, H, W), masks (B, K, 1, H, W), and what is to be found (B, H, W)."""

    query: Tensor
    supports: Tensor
    masks: Tensor
    ground_truth: Tensor


class Sides(NamedTuple):
    """Both ways of doing one thing."""

    naive: Callable[[], list[Prediction]]
    kshot: Callable[[], list[Prediction]]


def main() -> None:
    """Measure what is missing, and write the table."""
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
    """Time both sides of a case, in seconds; memory in MiB."""
    torch.set_num_threads(1)
    method, inputs = prepare(case)
    sides = arrange(case, method, inputs)
    difference = largest_difference(sides)
    plain = case._replace(engine="torch", precision="fp32")  # torch can only count its own operations
    counted = arrange(plain, method, inputs).kshot
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
    """Make a case's model with random weights, and its inputs."""
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
    """Say what each side computes."""
    naive = Naive(method)
    if case.trains:
        return arrange_step(case, method, naive, inputs)
    fast = Accelerated(method, case.engine, case.precision)
    shots = list(zip(inputs.supports.unbind(1), inputs.masks.unbind(1), strict=True))

    def fit() -> list[Support]:
        return [Support(fast.support_features(image), mask) for image, mask in shots]

    with torch.inference_mode():
        known = fit() if case.fitted else None

    @torch.inference_mode()
    def plainly() -> list[Prediction]:
        found = naive.predict(inputs.query, inputs.supports, inputs.masks)
        naive.vote(found, (case.size, case.size))
        return found

    @torch.inference_mode()
    def quickly() -> list[Prediction]:
        features = fast.features(inputs.query)
        found = fast.matching.match_each(features, fit() if known is None else known)
        segment_by_vote(found, (case.size, case.size), method.threshold)
        return found

    return Sides(plainly, quickly)


def arrange_step(case: Case, method: TwoPass, naive: Naive, inputs: Inputs) -> Sides:
    """Make a training step of each side, on features that are read already."""
    learned = [weight for weight in method.parameters() if weight.requires_grad]
    support_image, mask = inputs.supports[:, 0], inputs.masks[:, 0]
    with torch.no_grad():
        query, support = method.features(inputs.query), method.features(support_image)
        maps = [
            read(backbone, image)[0]
            for backbone in (naive.cls_backbone, naive.sem_backbone)
            for image in (inputs.query, support_image)
        ]
        base_logits = classify(method.base_head, read(naive.sem_backbone, inputs.query)[1])
    episode_class = torch.arange(case.batch) % BASE_CLASSES

    def step(prediction: Prediction) -> list[Prediction]:
        torch.autograd.grad(sum(losses(prediction, inputs.ground_truth).values()), learned)
        return [prediction]

    def plainly() -> list[Prediction]:
        return step(naive.match(*maps, mask, base_logits, episode_class))

    def fast() -> list[Prediction]:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.autocast):
            prediction = method.match(query, Support(support, mask), episode_class)
        return step(prediction)

    return Sides(plainly, fast)


def largest_difference(sides: Sides) -> float:
    """Compare the logits of every step and the base map, shot by shot."""
    pairs = zip(sides.naive(), sides.kshot(), strict=True)
    return max(
        float((getattr(plain, step) - getattr(fast, step)).detach().abs().max())
        for plain, fast in pairs
        for step in STEPS
    )


def alternate(sides: Sides, pairs: int, clock: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Time both sides in turn."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for times, run in zip(taken, sides, strict=True):
            start = clock()
            run()
            times.append(clock() - start)
    return taken


def peak_memory(case: Case, side: str) -> float:
    """Give the most memory that one side takes while it computes, in a process of its own."""
    return alone(_peak_memory, case, side)


def alone(measure: Callable[..., float], *arguments: Any) -> float:
    """Measure something in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def _peak_memory(case: Case, side: str) -> float:
    torch.set_num_threads(1)
    method, inputs = prepare(case)
    return take_peak(getattr(arrange(case, method, inputs), side))


def take_peak(run: Callable[[], Any]) -> float:
    """Run something, and give the most memory in MiB that this process held more than before."""
    ctypes.CDLL(None).malloc_trim(0)  # what making them has left would else be taken again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = memory("VmRSS")
    run()
    return memory("VmHWM") - before


def memory(what: str) -> float:
    """Read a figure of this process's memory."""
    # Not getrusage: its maximum begins with that of the process that started this one.
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[what].split()[0]) / 1024


def matmul_rate(precision: Precision) -> float:
    """Measure operations a second of large matrix products, with one thread; the best of several."""
    torch.set_num_threads(1)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    matrix, taken = torch.rand(2048, 2048).to(dtype), []
    for _ in range(7):
        start = time.process_time()
        linear(matrix, matrix)
        taken.append(time.process_time() - start)
    return 2 * 2048**3 / min(taken)


def table(found: dict[str, Any]) -> Table:
    """Lay out the results."""
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
    """Lay out the times of some cases."""
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
    """Name a case with its backbone."""
    return name if CASES[name].backbone != "resnet50" or "ResNet" in name else f"ResNet-50, {name}"


def rates(found: dict[str, Any]) -> str:
    """Say how fast the machine multiplies, in each precision that was measured."""
    fp32 = f"{found['gigaflops']:.0f} Gflop/s"
    return f"{fp32} ({found[bf16]:.0f} in bf16)" if (bf16 := RATES["bf16"]) in found else fp32


if __name__ == "__main__":
    main()
