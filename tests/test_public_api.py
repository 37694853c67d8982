"""The names that each package offers exist."""

import importlib
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
