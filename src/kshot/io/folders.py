"""Find the files in a folder that a user put there: not what systems leave behind, nor kshot's results."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kshot.io.files import TEMPORARY_PREFIX

SETTINGS_FILE = "settings.json"
"""The settings that the results in a folder depend on; it marks a folder as one of results."""

SYSTEM_NAMES = frozenset(
    {
        "__MACOSX",
        ".ipynb_checkpoints",
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        ".AppleDouble",
        ".Spotlight-V100",
        ".TemporaryItems",
        ".Trash",
        ".Trashes",
        ".fseventsd",
        ".thumbnails",
        ".git",
        ".DS_Store",
        "Thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    }
)
"""Folders and files that systems and tools make; the images in them are copies, previews or waste."""

SYSTEM_PREFIXES = ("._", TEMPORARY_PREFIX)
"""Starts of the names of macOS's resource forks, and of files that kshot was writing when it was killed."""

MAX_NAMES = 5
"""Names in a message: the first ones."""


@dataclass
class FolderFiles:
    """The files in a folder and below it. left_out: what is not searched, by reason."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def summary(self) -> str:
        """Return what is left out in one line; empty text if that is nothing."""
        parts = [f"{reason}: {first_names(paths)}" for reason, paths in self.left_out.items()]
        return f"Left out in {self.folder}: {'; '.join(parts)}." if parts else ""


def find_files(folder: Path, results: Path | None = None) -> FolderFiles:
    """Return the files in a folder, recursively, in alphabetical order.

    Files of operating systems and the folder `results` are skipped. Broken links, linked folders, folders
    that cannot be read, and the results of other runs of kshot are listed in `left_out`.
    """
    found = FolderFiles(folder)
    skipped = None if results is None else results.resolve()
    if skipped in (folder.resolve(), *folder.resolve().parents):
        return found
    found.files = sorted(_walk(folder, skipped, found.left_out))
    return found


def is_system_file(path: Path) -> bool:
    """Return whether an operating system, a file server or a notebook made a file or folder for itself."""
    return path.name in SYSTEM_NAMES or path.name.startswith(SYSTEM_PREFIXES)


def holds_results(folder: Path) -> bool:
    """Return whether `kshot segment` wrote its results into a folder."""
    with suppress(OSError, ValueError):
        settings = json.loads((folder / SETTINGS_FILE).read_bytes())
        return isinstance(settings, dict) and {"kshot", "supports_sha256"} <= settings.keys()
    return False


def first_names(paths: list[Path]) -> str:
    """Return the first paths as text, and how many more there are."""
    more = f" and {len(paths) - MAX_NAMES} more" if len(paths) > MAX_NAMES else ""
    return ", ".join(map(str, sorted(paths)[:MAX_NAMES])) + more


def _walk(folder: Path, skipped: Path | None, left_out: dict[str, list[Path]]) -> Iterator[Path]:
    """Yield the files below a folder; sort what is not searched into `left_out`."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        left_out["folders that cannot be read"].append(folder)
        return
    for entry in entries:
        path = folder / entry.name
        if is_system_file(path):
            continue
        if entry.is_symlink() and not path.is_file():
            left_out["linked folders" if path.is_dir() else "broken links"].append(path)
        elif entry.is_file():
            yield path
        elif entry.is_dir() and path.resolve() != skipped:
            if holds_results(path):
                left_out["results of an earlier run"].append(path)
            else:
                yield from _walk(path, skipped, left_out)
