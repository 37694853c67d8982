"""What the documents show is what the code does."""

import functools
import json
import re
import shutil
import socket
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest
import torch
import typer
import uvicorn
import yaml
from conftest import load_module
from make_data import colour_segmenter, scene, two_things, write_pascal
from PIL import Image
from safetensors.torch import save_file

from kshot.cli import main as cli
from kshot.cli.info import describe
from kshot.data import DATASETS, draw_manifest, draw_manifests, preset, read_fold
from kshot.evaluation.comparison import compare
from kshot.evaluation.results import read_result as read_result_file
from kshot.export import EXPORTERS
from kshot.io.overlays import label_image
from kshot.methods import METHODS
from kshot.methods.saving import load_model
from kshot.models.backbones import Backbone
from kshot.models.imagenet_weights import weights_sha256
from kshot.reproduction.table_writers import insert_between, to_markdown
from kshot.reproduction.tables import ablation_table, list_table
from kshot.web.server import make_app

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
README = (ROOT / "README.md").read_text()
read_result = functools.cache(read_result_file)


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)


def shown_commands(text):
    """Return what follows `kshot` in a page's code blocks and code spans."""
    blocks = "".join(re.findall(r"```sh\n(.*?)```", text, flags=re.S))
    return re.findall(r"^(?:\.venv/bin/)?kshot (.*)$", blocks, flags=re.M), re.findall(
        r"`kshot ([^`]*)`", text
    )


@pytest.fixture(scope="module")
def resnet50_file(tmp_path_factory):
    """Random weights of the backbone that the documents name."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(Backbone("resnet50").trunk.state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch, resnet50_file):
    """The files that the documents name."""
    monkeypatch.chdir(tmp_path)
    image, mask = scene()
    image.save("cup.jpg")
    Image.fromarray(mask).save("cup_mask.png")
    Path("photos").mkdir()
    for name in ("photos/one.jpg", "photos/two.jpg"):
        scene(left=50)[0].save(name)
    image, labels = two_things()
    for name in ("table.jpg", "other_table.jpg"):
        image.save(name)
    label_image(labels).save("table_labels.png")
    Path("resnet50.safetensors").symlink_to(resnet50_file)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/segment.md"])
def test_the_python_of_the_first_pages_runs(page):
    names = {}
    blocks = python_blocks(page)
    assert blocks
    for block in blocks:
        exec(block, names)
    found = {"mask", "probability", "labels"} & names.keys()
    assert found
    assert {names[name].shape for name in found} == {(90, 180)}
    assert names["result"].plot().height == 90


@pytest.fixture
def clean_registries(monkeypatch):
    """Forget after a test what it registers."""
    for registry in (METHODS, DATASETS, EXPORTERS):
        for name in registry:
            assert registry[name]  # a module that is imported in the test would not register again
        monkeypatch.setattr(registry, "_found", dict(registry._found))


@pytest.mark.usefixtures("photos", "clean_registries")
def test_the_method_dataset_and_exporter_of_the_documents_work():
    names = {}
    for block in python_blocks("docs/methods.md"):
        exec(block, names)
    assert names["segmenter"].config.method == "nearest"
    assert names["result"].mask.shape == (90, 180)
    assert names["result"].mask.any()
    assert not names["result"].mask.all()
    episode = draw_manifest(names["fold"], preset("balanced", "cups"), 1, 0).episodes[0]
    ground_truth = names["cups"].ground_truth(episode.query, episode.class_id)
    assert ground_truth.shape == (90, 120)
    assert {"nearest", "cups", "state-dict"} <= {*METHODS, *DATASETS, *EXPORTERS}
    assert "cls_backbone.trunk.conv_stem.weight" in torch.load("nearest.pt")


@pytest.mark.usefixtures("clean_registries")
def test_the_tutorial_evaluates_a_method_in_thirty_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = {"num_episodes": 6, "image_size": 64}
    monkeypatch.setattr("kshot.data.preset", lambda *names: preset(*names).model_copy(update=short))
    protocol = preset("hsnet", "pascal").model_copy(update=short)
    (manifest,) = draw_manifests("pascal", protocol)
    names = {name for episode in manifest.episodes for name in episode.image_names}
    write_pascal(tmp_path, [pair for pair in read_fold("pascal").queries if pair[0] in names])
    blocks = python_blocks("docs/evaluate-your-method.md")
    assert len(blocks[0].splitlines()) <= 30
    found = {}
    for block in blocks:
        exec(block.replace("num_workers=2", "num_workers=0"), found)
    assert found["result"].manifests == (manifest.sha256,)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"mIoU \d+\.\d%, 95 % interval \d+\.\d% to \d+\.\d%", lines[0])
    assert lines[-1] == "torch.Size([4, 3, 400, 400]) torch.Size([4, 1, 1, 400, 400])"


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/segment.md"])
def test_the_commands_of_the_first_pages_run(page):
    text = (ROOT / page).read_text()
    commands, _ = shown_commands(text)
    commands += re.findall(r"`kshot (info .*?)`", text)
    assert commands
    for command in commands:
        with pytest.raises(SystemExit) as caught:
            cli.main(command.partition("#")[0].split())
        assert not caught.value.code, command
    assert Path("masks/one_mask.png").exists()
    assert Path("labels/one_labels.png").exists() == ("labels/" in text)


def verbs(command=None, words=()):
    """Yield all verbs of the command: (words, options)."""
    command = command or typer.main.get_command(cli.app)
    for name, verb in command.commands.items():
        if hasattr(verb, "commands"):
            yield from verbs(verb, (*words, name))
        else:
            yield (*words, name), {o for p in verb.params for o in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/annotations.md",
        "docs/benchmarks.md",
        "docs/methods.md",
        "docs/mistakes.md",
        "docs/rasters.md",
        "docs/scale.md",
        "docs/segment.md",
        "docs/server.md",
        "docs/training.md",
    ],
)
def test_every_verb_and_option_that_documents_show_exists(document):
    text = (ROOT / document).read_text()
    existing = dict(verbs())
    shown = [command for commands in shown_commands(text) for command in commands]
    assert shown
    for line in shown:
        words = line.partition("#")[0].split()
        verb = next((v for v in existing if tuple(words[: len(v)]) == v), None)
        assert verb is not None, line
        assert {word for word in words if word.startswith("--")} <= existing[verb], line
    named = set(re.findall(r"`(--[a-z-]+)", text))
    assert named <= set().union(*existing.values())


@pytest.fixture
def server():
    """Serve a small model at a free port, and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        server = uvicorn.Server(uvicorn.Config(make_app(colour_segmenter()), log_level="warning"))
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.mark.usefixtures("photos")
@pytest.mark.skipif(not shutil.which("curl"), reason="the documents show how to ask with curl")
def test_the_servers_curl_commands_run(server):
    page = (ROOT / "docs/server.md").read_text()
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", page, flags=re.S) if "curl" in block]
    assert blocks
    script = "set -e\n" + "\n".join(blocks).replace("http://127.0.0.1:8000/", server)
    subprocess.run(["bash", "-c", script], check=True, timeout=60)
    with Image.open("table_mask.png") as mask, Image.open("table.jpg") as photo:
        assert mask.size == photo.size
    with zipfile.ZipFile("results.zip") as archive:
        assert {"cup_mask.png", "one_mask.png", "two_overlay.png", "instances.json"} <= set(
            archive.namelist()
        )


def test_the_readmes_parameter_counts_are_the_networks():
    for method in ("hsnet", "two-pass"):
        row = next(line for line in README.splitlines() if line.startswith(f"| `{method}`"))
        assert f"{describe(method, 'resnet50')['trainable_parameters']:,}" in row


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.M))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        assert set(re.findall(r"`make (\w[\w-]*)", path.read_text())) <= targets, path


def anchors(text):
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[ -]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda path: path.name,
)
def test_links_between_documents_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if link.startswith(("http", "command.md")):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r": ([\w-]+\.md)$", text, flags=re.M))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | {"command.md"}
    assert named == pages


def test_what_the_architecture_names_exists():
    page = (ROOT / "docs/architecture.md").read_text()
    listing = re.search(r"```\nsrc/kshot/\n(.*?)```", page, flags=re.S)[1]
    files = {path.name for path in (ROOT / "src/kshot").rglob("*.py")}
    assert set(re.findall(r"\b[\w]+\.py\b", page)) <= files | {"test_layout.py", "test_kernels.py"}
    folders = re.findall(r"^  (?:  )?(\w+)/ ", listing, flags=re.M)
    here = {path.name for path in (ROOT / "src/kshot").rglob("*") if path.is_dir()}
    assert set(folders) <= here
    top = {path.name for path in (ROOT / "src/kshot").iterdir() if path.is_dir()} - {"__pycache__"}
    assert top <= set(folders)


def test_the_architectures_forward_is_the_codes():
    snippet = re.search(r"```python\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), flags=re.S)
    source = (ROOT / "src/kshot/methods/two_pass.py").read_text()
    for line in snippet[1].splitlines():
        assert line.partition("  #")[0] in source, line


@pytest.mark.parametrize(
    ("page", "marker", "made_by", "files", "count"),
    [
        ("docs/benchmarks", "table-list", list_table, "prototype", 20),
        ("docs/training", "table-list", list_table, "shipped", 8),
        ("docs/training", "table-ablation", ablation_table, "ablation", 28),
    ],
)
def test_tables_of_scores_are_made_from_the_result_files(page, marker, made_by, files, count):
    page = (ROOT / f"{page}.md").read_text()
    results = [read_result(path) for path in sorted(RESULTS.glob(f"{files}_*.json"))]
    assert len(results) == count
    assert insert_between(page, marker, to_markdown(made_by(results))) == page


def test_tables_of_the_development_sets_are_made_from_their_result_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    dev_suite = load_module(ROOT / "benchmarks/dev_suite.py")
    results = dev_suite.read_results()
    tables = dev_suite.make_tables(results)
    for page, markers in (("README", ["table-dev"]), ("docs/benchmarks", ["table-dev-sets"])):
        text = (ROOT / f"{page}.md").read_text()
        for marker in markers:
            assert insert_between(text, marker, tables[marker]) == text
    for found in results.values():
        for result in found.values():
            assert "+" not in result.provenance.commit
    shipped = {name: one for name, one in results.items() if name in ("hsnet", "two-pass", "two-pass-plus")}
    for name, found in shipped.items():
        assert {result.model.weights_sha256 for result in found.values()} == {
            weights_sha256(load_model(name)[1])
        }


def test_the_table_of_the_recipe_is_made_from_its_result_files(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    page = (ROOT / "benchmarks/NOTES.md").read_text()
    recipe = load_module(ROOT / "benchmarks/recipe.py")
    for start in recipe.TABLES:
        page = insert_between(page, f"table-recipe-{start}", recipe.table(start))
    assert page == (ROOT / "benchmarks/NOTES.md").read_text()


def test_every_score_was_made_by_committed_code_on_frozen_episodes():
    frozen = {json.loads(path.read_text())["sha256"] for path in (ROOT / "benchmarks/manifests").iterdir()}
    files = [path for path in RESULTS.glob("*.json") if "runs" in json.loads(path.read_text())]
    assert len(files) >= 57
    for path in files:
        result = read_result(path)
        assert set(result.manifests) <= frozen, path
        assert "--root PLACE" in result.provenance.command, path
        assert result.provenance.commit is not None, path
        assert "+" not in result.provenance.commit, path  # nothing but what is committed made a number


def test_the_scores_of_what_ships_are_of_the_weights_that_ship():
    models = [read_result(path).model for path in RESULTS.glob("shipped_*.json")]
    scored = {model.name: model.weights_sha256 for model in models if model.config.method != "prototype"}
    assert "two-pass" in scored
    for name, digest in scored.items():
        assert weights_sha256(load_model(name)[1]) == digest, name


def test_how_far_what_ships_is_ahead_is_computed_from_its_result_files():
    page = " ".join((ROOT / "docs/training.md").read_text().split())
    paths = [RESULTS / f"shipped_{m}_coco-mini-60_1shot.json" for m in ("prototype", "two-pass")]
    miou = compare(*map(read_result, paths))[0]
    assert miou.name == "miou"
    ahead, low, high = (f"{100 * value:.1f}" for value in (miou.difference, *miou.interval))
    assert f"{ahead} points ahead of prototypes" in page
    assert f"(95 % interval {low} to {high})" in page


def test_how_two_pass_plus_compares_is_computed_from_its_result_files():
    page = (ROOT / "docs/training.md").read_text()
    for other, size in (("prototype", 417), ("hsnet", 257), ("two-pass", 385)):
        cells = [f"`{other}`, {size} px"]
        for episodes in ("voc-train_fold0", "coco-mini-60"):
            theirs, ours = (
                read_result(RESULTS / f"shipped_{model}_{episodes}_1shot.json")
                for model in (other, "two-pass-plus")
            )
            assert theirs.image_size == size
            miou = compare(theirs, ours)[0]
            low, high = (100 * value for value in miou.interval)
            cells.append(f"{100 * miou.difference:+.1f} ({low:+.1f} to {high:+.1f})")
        assert f"| {' | '.join(cells)} |" in page


def test_the_table_of_small_objects_is_made_from_its_result_file():
    page = (ROOT / "docs/images.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/small_objects.json").read_text())
    table = load_module(ROOT / "benchmarks/small_objects.py").table(found)
    assert insert_between(page, "table-small-objects", table) == page
    assert not any("+" in one["provenance"]["commit"] for one in found["sizes"].values())


def test_the_table_of_suggestions_is_made_from_its_result_file():
    page = (ROOT / "docs/suggest.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/suggest.json").read_text())
    table = load_module(ROOT / "benchmarks/suggest.py").table(found)
    assert insert_between(page, "table-suggest", table) == page
    assert "+" not in found["provenance"]["commit"]


@pytest.mark.parametrize("name", ["negatives", "self_check"])
def test_the_tables_of_mistakes_are_made_from_their_result_files(name):
    page = (ROOT / "docs/mistakes.md").read_text()
    found = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    table = load_module(ROOT / f"benchmarks/{name}.py").table(found)
    assert insert_between(page, f"table-{name.replace('_', '-')}", table) == page
    assert "+" not in found["provenance"]["commit"]


def test_the_tables_of_scale_are_made_from_their_result_file():
    page = (ROOT / "docs/scale.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/scale.json").read_text())
    tables = load_module(ROOT / "benchmarks/scale.py").tables(found)
    assert insert_between(page, "table-scale", tables) == page
    runs = [found[name] for name in ("one", "two", "killed", "ray")]
    assert {run["sha256"] for run in runs} == {found["one"]["sha256"]}
    assert {(run["masks"], run["done_twice"]) for run in runs} == {(found["count"], 0)}
    assert found["killed"]["kept"]
    assert found["ray"]["kept"]
    assert found["count"] >= 2000
    assert "+" not in found["provenance"]["commit"]


def test_the_array_jobs_of_the_documents_leave_no_share_out():
    page = (ROOT / "docs/scale.md").read_text()
    array = re.search(r"--array=1-(\d+)%.*?--shard \$SLURM_ARRAY_TASK_ID/(\d+)\n", page, flags=re.S)
    assert array[1] == array[2]
    job = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, flags=re.S)[1])["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    last, stand_in = str(job["completions"]), 'kshot() { echo "${@: -1}"; return $STATUS; }\n'
    for status, ends_well in ((0, True), (1, True), (2, False)):
        done = subprocess.run(
            ["bash", "-c", stand_in + container["args"][0]],
            env={"STATUS": str(status), "JOB_COMPLETION_INDEX": str(int(last) - 1)},
            capture_output=True,
            text=True,
        )
        assert done.stdout == f"{last}/{last}\n"
        assert (done.returncode == 0) == ends_well


def test_the_table_of_passes_is_made_from_its_result_file(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    page = (ROOT / "docs/training.md").read_text()
    found = json.loads((ROOT / "benchmarks/results/passes.json").read_text())
    table = load_module(ROOT / "benchmarks/passes.py").table(found)
    assert insert_between(page, "table-passes", table) == page
    assert "+" not in found["provenance"]["commit"]
