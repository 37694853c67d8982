"""The rows of `make robustness` at a small size, and the published table."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import FORKED

from benchmarks.robustness import __main__ as robustness
from benchmarks.robustness import (
    annotations,
    broken_images,
    disk,
    image_modes,
    interruptions,
    isolated,
    masks,
    server_security,
    server_uploads,
    weights,
)
from benchmarks.robustness.isolated import Crashed, run_isolated
from benchmarks.robustness.rows import CannotRun, Outcome, Row, table
from benchmarks.robustness.server_process import Response
from kshot.reproduction.table_writers import insert_between

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks/results/robustness.json"


def test_the_table_is_made_from_its_result_file():
    page, found = (ROOT / "docs/robustness.md").read_text(), json.loads(RESULT.read_text())
    assert insert_between(page, "table-robustness", table(found.values())) == page


def test_the_result_file_has_the_current_rows():
    found = json.loads(RESULT.read_text())
    assert list(found) == list(robustness.ROWS)
    assert not any("+" in one["provenance"]["commit"] for one in found.values())
    for name, row in robustness.ROWS.items():
        assert (found[name]["case"], found[name]["expected"]) == (row.case, row.expected)


@pytest.mark.parametrize(
    ("measure", "count"),
    [
        (broken_images.broken_files, 15),
        (masks.random_masks, 100),
        (annotations.random_files, 50),
        (weights.flipped_bytes, 5),
    ],
)
def test_rows_are_met_at_a_small_size(measure, count, tmp_path):
    found = measure(tmp_path, count)
    assert str(count) in found.figure
    assert found.is_met is True


@pytest.fixture(autouse=True)
def quick_processes(monkeypatch):
    """Let isolated processes start as forks of one that has imported kshot."""
    monkeypatch.setattr(isolated, "get_context", lambda method: FORKED)


@pytest.mark.parametrize(
    ("measure", "count"),
    [
        (disk.full_disk, 10),
        pytest.param(interruptions.killed_trainings, 2, marks=pytest.mark.slow),  # see test_training.py
    ],
)
def test_rows_with_system_requirements_are_met_at_a_small_size(measure, count, tmp_path):
    try:
        found = measure(tmp_path, count)
    except CannotRun as reason:
        pytest.skip(str(reason))
    assert f"{count}/{count}" in found.figure
    assert found.is_met is True


def without_alpha(path):
    with Image.open(path) as image:
        return image.convert("RGB")


def test_rows_detect_failures(tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "read_mask", lambda source, size: np.zeros(size, bool))
    assert masks.random_masks(tmp_path, 50).is_met is False
    monkeypatch.setattr(image_modes, "read_image", without_alpha)
    assert image_modes.hidden_pixels(tmp_path).is_met is False
    monkeypatch.setattr(weights, "load_model", lambda folder, backbone_weights: None)
    assert weights.flipped_bytes(tmp_path, 3).is_met is False


@pytest.mark.parametrize(
    "name",
    [
        "../a.png",
        "a/../../b",
        "/etc/passwd",
        "..\\\\a",
        "C:a",
        "labelme/con.json",
        "NUL",
        "a" * 252 + ".png",
        "a\\0",
    ],
)
def test_names_that_lead_out_of_a_zip_are_detected(name):
    assert server_uploads.escapes(name)
    assert not server_uploads.escapes("labelme/.. console.json")


@pytest.mark.parametrize(
    ("policy", "is_strict"),
    [
        ("default-src 'none'; script-src 'self'; img-src 'self' blob:", True),
        ("default-src 'none'; script-src 'self' 'unsafe-inline'", False),
        ("default-src 'none'; img-src *", False),
        ("script-src 'self'", False),
        ("", False),
    ],
)
def test_weak_policies_are_detected(policy, is_strict):
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff"}
    assert server_security.has_strict_policy(Response(200, headers, b"")) is is_strict
    assert server_security.INLINE.search("<b onclick = 'x'>")
    assert server_security.INLINE.search("<script>")
    assert not server_security.INLINE.search('<script type="module" src="static/main.js"></script>')


def cannot_run(folder):
    raise CannotRun("there is no tape drive")


def fail(folder):
    raise ZeroDivisionError


def test_a_row_that_cannot_run_or_fails_is_not_met(capsys):
    row = Row("name", "case", "expected", cannot_run)
    assert robustness.run(row)["figure"] == "not run: there is no tape drive"
    assert robustness.run(row)["is_met"] is None
    broken = robustness.run(row._replace(measure=fail))
    assert (broken["figure"], broken["is_met"]) == ("error: ZeroDivisionError", False)
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert "0 of 2 rows are met" in table([robustness.run(row), broken])


def test_a_process_that_dies_raises_crashed():
    with pytest.raises(Crashed, match="died"):
        run_isolated(os._exit, 1)
    assert run_isolated(os.getpid) != os.getpid()


def test_rows_are_chosen_by_name_and_the_others_kept(tmp_path, monkeypatch):
    page, result = tmp_path / "page.md", tmp_path / "robustness.json"
    page.write_text("<!-- begin table-robustness -->\n<!-- end table-robustness -->\n")
    rows = {
        name: Row(name, f"case {name}", "a", lambda folder, met=met: Outcome(f"{met}", met))
        for name, met in {"first": True, "second": False}.items()
    }
    monkeypatch.setattr(robustness, "ROWS", rows)
    monkeypatch.setattr(robustness, "RESULT", result)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["robustness", *arguments])
        with pytest.raises(SystemExit) as caught:
            robustness.main()
        return caught.value.code

    assert run("second") == 1
    assert list(json.loads(result.read_text())) == ["second"]
    assert run("first", "--into", str(page)) == 1
    assert list(json.loads(result.read_text())) == ["first", "second"]
    assert "| case second | a | False | **no** |" in page.read_text()
    assert run("third") == 2
