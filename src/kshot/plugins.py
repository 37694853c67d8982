"""Methods, datasets and exporters by name: kshot's own, and those of other packages.

Another package registers its own when it is imported. To be found by the command too, it names its module as
an entry point, in pyproject.toml:

    [project.entry-points."kshot.methods"]
    mine = "my_package.my_method"
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from kshot.errors import KshotError, reason_of

T = TypeVar("T")


class Plugins(Generic[T]):
    """Things of one kind by name.

    kind: the word for error messages. group: of the entry points that add further ones. built_in: kshot's own
    names, and the modules that register them; each is imported when it is used. error: what a wrong name
    raises.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str], error: type[KshotError]) -> None:
        self.kind, self.group, self.error = kind, group, error
        self._built_in = built_in
        self._found: dict[str, T] = {}
        self._is_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers under a name. Raises the kind's error if the name is taken.

        A definition that runs again, as in a notebook, replaces the earlier one.
        """

        def add(thing: T) -> T:
            is_other = _place(self._found.get(name, thing)) != _place(thing)
            if is_other or self._built_in.get(name, thing.__module__) != thing.__module__:
                raise self.error(f"There is a {self.kind} '{name}' already. Choose another name.")
            self._found[name] = thing
            return thing

        return add

    def __contains__(self, name: object) -> bool:
        if name not in self._found and name not in self._built_in:
            self._load_entry_points()
        return name in self._found or name in self._built_in

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise self.error(f"There is no {self.kind} '{name}'. Use one of {', '.join(self)}.")
        if name not in self._found:
            import_module(self._built_in[name])
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        self._load_entry_points()
        return iter(sorted({*self._built_in, *self._found}))

    def _load_entry_points(self) -> None:
        """Import the modules that other packages name for this group, once."""
        if self._is_loaded:
            return
        self._is_loaded = True
        for point in entry_points(group=self.group):
            try:
                point.load()
            except Exception as error:  # another package's code can raise anything
                self._is_loaded = False  # else the next call would pass over it, and over those that follow
                raise self.error(
                    f"The {self.kind} '{point.name}' cannot be imported from {point.value}: "
                    f"{reason_of(error)}. Repair or uninstall the package that contains it."
                ) from error


def _place(thing: object) -> tuple[str, str]:
    """Return where a class or a function is defined."""
    return thing.__module__, getattr(thing, "__qualname__", "")
