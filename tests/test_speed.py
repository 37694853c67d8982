"""The published tables of speed are made from their result files, and both sides compute the same."""

import json
from pathlib import Path

import torch
from conftest import load_module
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from kshot.models.kernels.onednn import PackedLinear
from kshot.reproduction.table_writers import insert_between, to_markdown

ROOT = Path(__file__).parent.parent


def test_the_table_of_speeds_is_made_from_its_result_file(speed):
    page = (ROOT / "docs/performance.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/speed.json").read_text())
    assert insert_between(page, "table-speed", to_markdown(speed.table(found))) == page
    readme = (ROOT / "README.md").read_text()
    assert insert_between(readme, "table-speed-short", to_markdown(speed.short_table(found))) == readme
    assert set(found["cases"]) == set(speed.CASES)
    assert all(one["pairs"] >= 7 for one in found["cases"].values())
    assert "+" not in found["provenance"]["commit"]


def test_the_table_of_parts_is_made_from_its_result_file(parts):
    page = (ROOT / "docs/performance.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/parts.json").read_text())
    for name, make in parts.TABLES.items():
        assert insert_between(page, name, to_markdown(make(found))) == page
    assert found["pairs"] >= 7
    assert "+" not in found["provenance"]["commit"]
    assert set(found["parts"]) == {*parts.PARTS, *parts.TRIED}


def test_operations_are_counted_in_products_and_in_grouped_convolutions_gradients(speed):
    convolution = torch.nn.Conv2d(8, 16, 3, padding=1, groups=4, bias=False)
    images = torch.rand(2, 8, 10, 10).requires_grad_()
    forward = 2 * images[:, 0].numel() * convolution.weight.numel()
    with FlopCounterMode(display=False, custom_mapping=speed.COUNTS) as counter:
        convolution(images).sum().backward()
    assert counter.get_total_flops() == 3 * forward
    with FlopCounterMode(display=False, custom_mapping=speed.COUNTS) as counter:
        PackedLinear(torch.rand(5, 7))(torch.rand(3, 7))
    assert counter.get_total_flops() == 2 * 3 * 5 * 7


def test_winograds_convolution_is_the_convolution(parts):
    image = torch.rand(1, 5, 10, 7).contiguous(memory_format=torch.channels_last)
    kernel = torch.rand(6, 5, 3, 3)
    found = parts.winograd.convolve(image, parts.winograd.transform(kernel))
    torch.testing.assert_close(found, F.conv2d(image, kernel, padding=1), rtol=1e-4, atol=1e-4)


def test_without_any_part_of_its_speed_kshot_computes_the_same(speed, parts):
    whole = speed.arrange(case := speed.Case("efficientnet_lite0", 97), *speed.prepare(case)).kshot
    for name in [*parts.PARTS, "H_cls by Winograd's way"]:
        sides = speed.Sides(parts.otherwise(name, whole), whole)
        assert speed.largest_difference(sides) < 1e-4, name


def test_the_table_of_agreement_is_made_from_its_result_file():
    page = (ROOT / "docs/performance.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/agreement.json").read_text())
    agreement = load_module(ROOT / "benchmarks/agreement.py")
    assert insert_between(page, "table-agreement", to_markdown(agreement.table(found))) == page
    assert found["episodes"] >= 50
    assert "+" not in found["provenance"]["commit"]
    assert set(found["models"]) == {"two-pass", "two-pass-plus"}
    for _, _, each in agreement.results(found):
        assert sum(one["different"] for one in each) < 0.005 * sum(one["pixels"] for one in each)


def test_both_sides_of_a_timed_case_compute_the_same(speed):
    for case in (
        speed.Case("efficientnet_lite0", 65, shots=2),
        speed.Case("efficientnet_lite0", 65, fitted=True, covered=1.0),
        speed.Case("efficientnet_lite0", 65, batch=2, trains=True),
    ):
        sides = speed.arrange(case, *speed.prepare(case))
        assert speed.largest_difference(sides) < 1e-4
