"""Read the names of classes from the files that tools write beside folders of masks."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kshot.errors import DataError
from kshot.io.files import read_json, read_lines

LABEL_MAP = "labelmap.txt"
TEXT_FILES = LABEL_MAP, "class_names.txt", "classes.txt", "labels.txt"
"""Text files that name classes, the first that exists counts: of CVAT, LabelMe's converter, and others."""

JSON_FILE = "classes.json"

BACKGROUND = re.compile(r"_*background_*", re.IGNORECASE)
IGNORED = "__ignore__"
"""LabelMe's name of the pixels to ignore, which may be the first line of its lists."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassNames:
    """Names of classes, of which the first has the number 1 in masks.

    colours: those of the background (0) and the classes, by number, if a label map gives them.
    are_numbered: whether the order of the names says which number each has in masks without those colours.
    notes: what was assumed, one sentence each.
    """

    names: tuple[str, ...]
    colours: dict[Colour, int] = field(default_factory=dict)
    are_numbered: bool = True
    notes: tuple[str, ...] = ()


def find_class_names(folder: Path) -> ClassNames | None:
    """Return the names in a file in `folder`, or None if there is no such file.

    Raises DataError for a file that cannot be used.
    """
    found = [path for name in (*TEXT_FILES, JSON_FILE) if (path := folder / name).is_file()]
    if not found:
        return None
    path, *others = found
    if path.name == LABEL_MAP:
        read = read_label_map_file(path)
    elif path.name == JSON_FILE:
        read = ClassNames(read_names_json(path))
    else:
        read = read_names_text(path)
    unused = " and ".join(other.name for other in others)
    notes = (f"Class names are those of {path.name}; {unused} is not used.",) if others else ()
    return replace(read, notes=(*notes, *read.notes))


def read_names_text(path: Path) -> ClassNames:
    """Read one name a line. A first line "background" has the number 0. Blank lines have no number.

    Raises DataError if there is no name, or one occurs twice or cannot be printed.
    """
    lines, notes = _stripped_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    names = [line for line in lines if line]
    if len(names) < len(lines):
        notes.append(f"{path.name} has blank lines; classes are numbered without them.")
    if names and names[0] == IGNORED:
        names.pop(0)
    if names and BACKGROUND.fullmatch(names[0]):
        names.pop(0)
    return ClassNames(_checked(names, path), notes=tuple(notes))


def read_label_map_file(path: Path) -> ClassNames:
    """Read CVAT's label map: lines of name:red,green,blue:parts:actions; the background has no number.

    Raises DataError for a line of another form, or two names of one colour.
    """
    lines, notes = _stripped_lines(path)
    names: list[str] = []
    colours: dict[Colour, int] = {}
    are_numbered = True
    entries = [line for line in lines if line and not line.startswith("#")]
    for line in entries:
        name, colour = _entry(line, path)
        if BACKGROUND.fullmatch(name):
            number = 0
            are_numbered = not names  # else it is unclear which line has the number 0
        else:
            names.append(name)
            number = len(names)
        if colour is not None and colours.setdefault(colour, number) != number:
            raise DataError(
                f"{path} gives two classes the colour {colour}; the second is {name!r}. Change one."
            )
    colours.setdefault((0, 0, 0), 0)
    return ClassNames(_checked(names, path), colours, are_numbered, tuple(notes))


def read_names_json(path: Path) -> tuple[str, ...]:
    """Read class names from JSON: {"1": name, "2": name, …}, or that under the key "classes".

    Raises DataError that names the file, the faulty value and the remedy.
    """
    remedy = 'Write {"classes": {"1": "first name", "2": "second name"}}, numbered from 1 without a gap.'
    try:
        content = read_json(path)
    except DataError as error:
        raise DataError(f"{error} {remedy}") from error
    names = content.get("classes", content) if isinstance(content, dict) else content
    if not isinstance(names, dict) or not names:
        raise DataError(f"{path} names no classes: it holds {json.dumps(names)[:60]}. {remedy}")
    wanted = [str(number) for number in range(1, len(names) + 1)]
    if missing := [number for number in wanted if number not in names]:
        found = ", ".join(list(names)[:8])
        raise DataError(f"{path} has no class {missing[0]} among its {len(names)}: {found}. {remedy}")
    ordered = [names[number] for number in wanted]
    for number, name in zip(wanted, ordered, strict=True):
        if not isinstance(name, str) or not name.strip() or ordered.count(name) > 1:
            raise DataError(
                f"{path} names class {number} {json.dumps(name)}; each needs its own name. {remedy}"
            )
    return tuple(name.strip() for name in ordered)


def _stripped_lines(path: Path) -> tuple[list[str], list[str]]:
    """Return the lines of a file, and a note if its encoding had to be assumed."""
    lines, encoding = read_lines(path)
    notes = [f"{path.name} is not UTF-8; it is read as {encoding}."] if encoding == "cp1252" else []
    return [line.strip() for line in lines], notes


def _entry(line: str, path: Path) -> tuple[str, Colour | None]:
    name, _, rest = line.partition(":")
    numbers = [part.strip() for part in rest.partition(":")[0].split(",")]
    if numbers == [""]:
        return name.strip(), None
    if len(numbers) != 3 or not all(n.isascii() and n.isdecimal() and int(n[:9]) < 256 for n in numbers):
        raise DataError(
            f"{path} has the line {line[:60]!r}; it must be a name and a colour, such as cat:128,0,0::."
        )
    red, green, blue = map(int, numbers)
    return name.strip(), (red, green, blue)


def _checked(names: Sequence[str], path: Path) -> tuple[str, ...]:
    if not names:
        raise DataError(f"{path} names no class. Write one name a line, that of class 1 first.")
    for number, name in enumerate(names, 1):
        if not name or not name.isprintable() or name in names[: number - 1]:
            raise DataError(f"{path} names class {number} {name[:40]!r}; each needs its own name. Change it.")
    return tuple(names)
