"""Settings as text: NAME=VALUE pairs of a command, lists with commas, and what is wrong with a value."""

import tomllib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from kshot.errors import DataError, fault_of

if TYPE_CHECKING:
    from pydantic import ValidationError


def read_settings(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Return the values of --set by name, written as in TOML; null is None, and text needs no quotes.

    Of several values of one setting the last counts. Raises DataError for a pair without "=".
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not (name and equals):
            raise DataError(f"--set is '{pair}'. Give a setting's name and value, such as lr=5e-4.")
        value: Any = None if text.strip() == "null" else text.strip()
        with suppress(tomllib.TOMLDecodeError):
            value = tomllib.loads(f"value = {text}")["value"]
        found[name] = value
    return found


def split_commas(value: Any) -> Any:
    """Return the parts of a text such as "bus,car", without spaces around them; any other value as it is."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


def setting_fault(error: "ValidationError", names: Iterable[str]) -> str:
    """Return what is wrong with a setting; for one that does not exist, similar names of `names`, or all."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden" or len(first["loc"]) > 1:
        return f"A setting cannot be used: {fault_of(error)}."
    name, known = str(first["loc"][0]), list(names)
    close = get_close_matches(name, known)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Settings: {', '.join(known)}."
    return f"There is no setting '{name}'. {hint}"
