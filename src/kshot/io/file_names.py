"""Match file names as tools and systems write them.

The same name can differ in its Unicode form (macOS decomposes accents: NFD), in percent-encoding, or in the
folders before it.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from kshot.io.folders import SYSTEM_NAMES


def comparable(name: str) -> str:
    """Return a name or path in the form in which it is compared: decoded, composed (NFC), with slashes."""
    return unicodedata.normalize("NFC", unquote(name.replace("\\", "/")))


class FileIndex:
    """Files that are found by their name, or by the end of their path."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in dict.fromkeys(paths):
            self._by_name[comparable(path.name)].append(path)

    def find(self, name: str) -> list[Path]:
        """Return the files whose path ends with `name`: those that do so exactly, or else when decoded."""
        wanted = comparable(name)
        same_name = self._by_name.get(wanted.rpartition("/")[2], [])
        found = [path for path in same_name if f"/{comparable(path.as_posix())}".endswith(f"/{wanted}")]
        exact = [path for path in found if f"/{path.as_posix()}".endswith(f"/{name}")]
        return exact or found


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders in a fixed order, but for those that systems leave."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_left_behind(name))
        yield from (Path(parent, name) for name in sorted(names) if not is_left_behind(name))


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder, sorted, but for those that systems leave; none if it does not exist.

    Broken links are among them: reading one says what is wrong.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not is_left_behind(path.name) and not path.is_dir())


def is_left_behind(name: str) -> bool:
    """Return whether an operating system or a notebook made a file or folder for itself, by its name."""
    return name.startswith(".") or name in SYSTEM_NAMES
