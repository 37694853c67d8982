"""The house: a file imports only from rooms already passed, and the public names are complete."""

import ast
from pathlib import Path

import pytest

import kshot

SOURCE = Path(kshot.__file__).parent

# The rooms, in the order in which an image walks through them.
ROOMS = [
    "errors",
    "episode",
    "rgb",
    "image_files",
    "images",
    "pictures",
    "progress",
    "workers",
    "annotations.outlines",
    "annotations.label_pictures",
    "annotations.photographs",
    "annotations.voc",
    "annotations.folders",
    "annotations.json_files",
    "annotations.coco",
    "annotations.labelme",
    "annotations.cvat",
    "annotations.brush",
    "annotations.label_studio",
    "annotations.read",
    "annotations.components",
    "annotations.documents",
    "data.folds",
    "data.lists",
    "data.sampling",
    "data.protocols",
    "data.manifest",
    "data.truth",
    "data.pascal",
    "data.coco",
    "data.fss1000",
    "data.folder",
    "data.tasks",
    "data.benchmarks",
    "data.base_classes",
    "data.check",
    "data.prepare",
    "data.commands",
    "rasters.view",
    "rasters.kinds",
    "rasters.maps",
    "rasters.volumes",
    "rasters.dicom",
    "rasters.queries",
    "network.products",
    "network.backbones",
    "network.weights",
    "network.hypercorrelation",
    "network.conv4d",
    "network.norm",
    "network.encoder",
    "network.prior",
    "network.decoder",
    "network.base_learner",
    "network.fusion",
    "network.losses",
    "methods.voting",
    "methods.prototype",
    "methods.hsnet",
    "methods.two_pass",
    "pretrained",
    "base_learners",
    "description",
    "tiles",
    "openvino_reader",
    "engine",
    "segmenter",
    "self_check",
    "rasters.labelled",
    "rasters.answer",
    "rasters.segment_map",
    "rasters.segment_scan",
    "supports",
    "shards",
    "journal",
    "outputs",
    "batch",
    "ray_batch",
    "suggest",
    "web.limits",
    "web.uploads",
    "web.photographs",
    "web.session",
    "web.sessions",
    "web.jobs",
    "web.views",
    "web.archive",
    "web.state",
    "web.routes",
    "web.guard",
    "web.crowd",
    "web.server",
    "web.listen",
    "web.commands",
    "export",
    "benchmark.framing",
    "benchmark.metrics",
    "benchmark.feature_store",
    "benchmark.evaluate",
    "benchmark.provenance",
    "benchmark.results",
    "benchmark.score",
    "benchmark.compare",
    "benchmark.suite",
    "benchmark.suite_scores",
    "benchmark.suite_results",
    "benchmark.selection",
    "benchmark.calibrate",
    "benchmark.table_writers",
    "benchmark.tables",
    "benchmark.power",
    "benchmark.commands",
    "figures.correlations",
    "figures.style",
    "figures.charts",
    "figures.curves",
    "figures.page",
    "figures.panels",
    "figures.draw",
    "figures.commands",
    "training.recipes",
    "training.checkpoint",
    "training.feature_cache",
    "training.augment",
    "training.regions",
    "training.synthetic",
    "training.sources",
    "training.run_folder",
    "training.cards",
    "training.watchdog",
    "training.loop",
    "training.base_data",
    "training.pretrain",
    "training.episodes",
    "training.view_episodes",
    "training.validation",
    "training.start_from",
    "training.meta_train",
    "training.commands",
    "cli",
]


PATHS = sorted(path for path in SOURCE.rglob("*.py") if path.stem != "__init__")
MODULES = [(".".join(path.relative_to(SOURCE).with_suffix("").parts), path) for path in PATHS]


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kshot."):
            yield node.module.removeprefix("kshot.")


def test_every_file_has_a_room():
    assert sorted(name for name, _ in MODULES) == sorted(ROOMS)


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_a_file_imports_only_from_rooms_already_passed(name, path):
    for imported in imports_of(path):
        assert ROOMS.index(imported) < ROOMS.index(name), f"{name} imports {imported}"


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_the_wings_meet_in_the_hallway_only(name, path):
    data = {"data", "annotations"}
    other = {"data": {"network", "methods"}, "network": data, "methods": data}
    forbidden = other.get(name.partition(".")[0], set())
    assert not forbidden & {imported.partition(".")[0] for imported in imports_of(path)}


@pytest.mark.parametrize(("name", "path"), MODULES)
def test_a_file_has_its_test(name, path):
    own = Path(__file__).parent / f"test_{path.stem}.py"
    shared = {"prototype", "hsnet", "two_pass"}  # test_methods: one contract for all
    without_behaviour = {"errors", "episode", "voc", "truth"}
    covered_by_command = {"batch", "outputs", "draw"}  # test_cli, test_figure_commands; also commands.py
    covered_by_figures = {"style", "charts", "page", "panels"}  # test_figures: one contract for all
    whole_trainings = {"checkpoint", "run_folder", "cards", "loop", "base_data", "pretrain", "meta_train"}
    whole_trainings |= {"start_from"}
    covered_by_training = whole_trainings | {"base_learners", "validation"}  # test_training: whole runs
    covered_by_formats = {"json_files"}  # test_read: what all files have in common
    covered_by_server = {"limits", "photographs", "sessions", "views", "state", "routes"}  # and by session
    others = shared | without_behaviour | covered_by_command | covered_by_figures | covered_by_training
    others |= covered_by_formats | covered_by_server
    assert own.exists() or path.stem in others


def test_public_names_are_complete():
    assert sorted(kshot.__all__) == list(kshot.__all__)
    for name in kshot.__all__:
        assert getattr(kshot, name) is not None
    from kshot import errors

    raised = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)}
    assert raised <= set(kshot.__all__)
    with pytest.raises(AttributeError):
        kshot.nothing  # noqa: B018
