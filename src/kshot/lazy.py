"""Public names that are imported when they are first used: importing torch takes seconds."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`. names: the public names of each module, separated by spaces."""
    module_of = {name: module for module, public in names.items() for name in public.split()}

    def find(name: str) -> Any:
        if name in module_of:
            return getattr(import_module(module_of[name]), name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return find
