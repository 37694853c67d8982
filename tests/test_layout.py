"""Packages import in one direction, and the public names are complete."""

import ast
import re
from pathlib import Path

import pytest

import kshot

SOURCE = Path(kshot.__file__).parent

LAYERS = [
    "errors",
    "lazy",
    "plugins",
    "types",
    "transforms",
    "io",
    "results",
    "annotations",
    "data",
    "models",
    "methods",
    "segmenter",
    "predict",
    "evaluation",
    "training",
    "reproduction",
    "export",
    "web",
    "cli",
]
"""Files and folders at the top level; each imports only from itself and from those above it."""

NEVER = {("models", "data"), ("models", "annotations"), ("methods", "data"), ("methods", "annotations")}
"""Images become numbers in one place: no network reads a benchmark."""

MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.stem != "__init__")


def layer_of(path):
    return path.relative_to(SOURCE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_run_in_one_direction(path):
    own = layer_of(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kshot."):
            other = node.module.split(".")[1]
            assert LAYERS.index(other) <= LAYERS.index(own), f"{own} imports {node.module}"
            assert (own, other) not in NEVER


def test_figures_alone_need_matplotlib():
    users = {
        layer_of(path)
        for path in MODULES
        if re.search(r"^\s*(import|from) matplotlib", path.read_text(), re.M)
    }
    assert users == {"reproduction"}


def test_public_names_are_complete():
    assert sorted(kshot.__all__) == list(kshot.__all__)
    for name in kshot.__all__:
        assert getattr(kshot, name) is not None
    from kshot import errors

    raised = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, Exception)}
    assert raised <= set(kshot.__all__)
    with pytest.raises(AttributeError):
        kshot.nothing  # noqa: B018
