"""Methods by name: kshot's own, and those of other packages.

Another package registers its own when it is imported. To be found by the command too, it names its module as
an entry point, in pyproject.toml:

    [project.entry-points."kshot.methods"]
    mine = "my_package.my_method"
"""

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from kshot.errors import ModelError

T = TypeVar("T")


class Plugins(Generic[T]):
    """Things by name. kind: what they are, for messages. group: of the entry points that add further ones."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._found: dict[str, T] = {}
        self._is_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers under a name. Raises ModelError if the name is taken."""

        def add(thing: T) -> T:
            if self._found.get(name, thing) is not thing:
                raise ModelError(f"There is a {self.kind} '{name}' already. Choose another name.")
            self._found[name] = thing
            return thing

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._found:
            self._load_entry_points()
        if name not in self._found:
            raise ModelError(f"There is no {self.kind} '{name}'. Use one of {', '.join(self)}.")
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        self._load_entry_points()
        return iter(sorted(self._found))

    def _load_entry_points(self) -> None:
        """Import the modules that other packages name for this group, once."""
        if self._is_loaded:
            return
        self._is_loaded = True
        for point in entry_points(group=self.group):
            point.load()
