"""The names that each package offers exist, and load torch only when they are used."""

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

PACKAGES = ("data", "evaluation", "export", "methods", "models", "training")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_exists(package):
    module = importlib.import_module(f"kshot.{package}")
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert not isinstance(getattr(module, name), ModuleType), f"{name} is a module"
    with pytest.raises(AttributeError, match=f"module 'kshot.{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_public_names_load_torch_only_when_they_are_used():
    imports = ", ".join(f"kshot.{package}" for package in PACKAGES)
    code = (
        f"import sys, kshot.cli.main, {imports}\n"
        "assert list(kshot.export.EXPORTERS) == ['onnx']\n"
        "assert 'torch' not in sys.modules\n"
        "from kshot.training import train\n"
        "from kshot.evaluation import compare\n"
        "assert callable(train) and callable(compare)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
