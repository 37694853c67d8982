"""What the documents show is what the code does."""

import json
import re
from pathlib import Path

import pytest
import typer
from make_data import scene, two_things
from PIL import Image
from safetensors.torch import save_file

from kshot import cli
from kshot.benchmark.results import read_result
from kshot.benchmark.table_writers import insert_between, to_markdown
from kshot.benchmark.tables import list_table
from kshot.description import describe
from kshot.network.backbones import Backbone
from kshot.pictures import label_picture

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The files that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    picture, mask = scene()
    picture.save("cup.jpg")
    Image.fromarray(mask).save("cup_mask.png")
    Path("photos").mkdir()
    for name in ("photos/one.jpg", "photos/two.jpg"):
        scene(left=50)[0].save(name)
    picture, labels = two_things()
    for name in ("table.jpg", "other_table.jpg"):
        picture.save(name)
    label_picture(labels).save("table_labels.png")
    save_file(Backbone("resnet50").trunk.state_dict(), "resnet50.safetensors")


@pytest.mark.usefixtures("photos")
def test_the_readmes_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["mask"].shape == names["probability"].shape == (90, 180)
    assert names["labels"].shape == (90, 180)
    assert names["backbone"].name == "resnet50.tv_in1k"


@pytest.mark.usefixtures("photos")
def test_the_readmes_commands_run():
    commands = re.findall(r"^\.venv/bin/kshot (.*)$", README, flags=re.M)
    commands += re.findall(r"`kshot (info .*?)`", README)
    assert len(commands) == 3
    for command in commands:
        with pytest.raises(SystemExit) as caught:
            cli.main(command.split())
        assert not caught.value.code, command
    assert Path("masks/one_mask.png").exists()
    assert Path("labels/one_labels.png").exists()


def verbs(command=None, words=()):
    """All verbs of the command: (words, options)."""
    command = command or typer.main.get_command(cli.app)
    for name, verb in command.commands.items():
        if hasattr(verb, "commands"):
            yield from verbs(verb, (*words, name))
        else:
            yield (*words, name), {o for p in verb.params for o in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize(
    "document", ["README.md", "docs/annotations.md", "docs/benchmarks.md", "docs/training.md"]
)
def test_every_verb_and_option_that_documents_show_exists(document):
    text = (ROOT / document).read_text()
    existing = dict(verbs())
    shown = re.findall(r"^(?:\.venv/bin/)?kshot (.*)$", text, flags=re.M) + re.findall(
        r"`kshot ([^`]*)`", text
    )
    assert len(shown) > 3
    for line in shown:
        words = line.partition("#")[0].split()
        verb = next((v for v in existing if tuple(words[: len(v)]) == v), None)
        assert verb is not None, line
        assert {word for word in words if word.startswith("--")} <= existing[verb], line
    named = set(re.findall(r"`(--[a-z-]+)", text))
    assert named <= set().union(*existing.values())


def test_the_readmes_parameter_counts_are_the_networks():
    for method in ("hsnet", "two-pass"):
        row = next(line for line in README.splitlines() if line.startswith(f"| `{method}`"))
        assert f"{describe(method, 'resnet50')['trainable_parameters']:,}" in row


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.M))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = re.findall(r"`make (\w[\w-]*)", (ROOT / document).read_text())
        assert set(named) <= targets


def test_the_architecture_names_every_file():
    listing = (ROOT / "docs/architecture.md").read_text()
    for path in (ROOT / "src/kshot").rglob("*.py"):
        if path.stem not in ("__init__", "hsnet", "prototype", "two_pass", "voting"):
            assert path.name in listing, path.name


def test_the_architectures_forward_is_the_codes():
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), flags=re.S)
    source = (ROOT / "src/kshot/methods/two_pass.py").read_text()
    for line in snippet[1].splitlines():
        assert line.partition("  #")[0] in source, line


def test_the_benchmarks_table_is_made_from_the_result_files():
    page = (ROOT / "docs/benchmarks.md").read_text()
    results = [read_result(path) for path in sorted((ROOT / "benchmarks/results").glob("prototype_*.json"))]
    assert insert_between(page, "table-list", to_markdown(list_table(results))) == page
    frozen = {json.loads(path.read_text())["sha256"] for path in (ROOT / "benchmarks/manifests").iterdir()}
    for result in results:
        assert set(result.manifests) <= frozen
        assert "--root PLACE" in result.provenance.command
        assert result.provenance.commit is not None
        assert "+" not in result.provenance.commit  # nothing but what is committed made a number


def test_the_table_of_speeds_is_made_from_its_result_file(speed):
    page = (ROOT / "docs/performance.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/speed.json").read_text())
    assert insert_between(page, "table-speed", to_markdown(speed.table(found))) == page
    assert set(found["cases"]) <= set(speed.CASES)
    assert all(one["pairs"] >= 7 for one in found["cases"].values())
    assert "+" not in found["provenance"]["commit"]


def test_both_sides_of_a_timed_case_compute_the_same(speed):
    for case in (
        speed.Case("efficientnet_lite0", 65, shots=2),
        speed.Case("efficientnet_lite0", 65, fitted=True, covered=1.0),
        speed.Case("efficientnet_lite0", 65, batch=2, trains=True),
    ):
        sides = speed.arrange(case, *speed.prepare(case))
        assert speed.largest_difference(sides) < 1e-4
