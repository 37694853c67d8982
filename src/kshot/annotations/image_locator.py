"""Find the images that an annotation file names."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from kshot.errors import DataError, ImageError
from kshot.io.file_names import FileIndex, comparable, files_below, files_in

logger = logging.getLogger(__name__)

UPLOADED = re.compile(r"[0-9a-f]{4,}-(.+)")
"""Name of an uploaded file: annotation servers put a random prefix before the original name."""


@dataclass(frozen=True)
class ImageLocator:
    """Finds the images of an annotation file.

    folders: to which a relative path in the file may refer. recursive: the one that is searched recursively.
    listed: how often the file names each file name; one that occurs twice needs its folder.
    """

    folders: tuple[Path, ...]
    recursive: Path
    listed: Counter[str]

    @classmethod
    def for_file(cls, file: Path, images: Path | None, listed: Counter[str] | None = None) -> "ImageLocator":
        """Return a locator for the folder of an annotation file and its images/, or for `images` alone.

        listed: shared by several files. Raises DataError if `images` is not a folder.
        """
        listed = Counter() if listed is None else listed
        if images is None:
            return cls((file.parent, file.parent / "images"), file.parent / "images", listed)
        if not images.is_dir():
            raise DataError(f"There is no folder {images}. Give the one that holds the images.")
        return cls((images,), images, listed)

    def add_listed(self, names: Iterable[str]) -> None:
        """Note the images that the annotation file names, before the first is looked up."""
        self.listed.update(file for name in set(names) for file in _file_names(name))

    def find(self, *names: str) -> Path:
        """Return the path of an image that may have several names; the first that exists.

        Names match in any Unicode form and percent-encoding. A relative path is looked up in the folders,
        then as the end of a path. Else the only file of its name is taken, with or without the prefix of an
        upload, unless the annotation file has several images of that name: train/1.jpg is not val/1.jpg.
        Of absolute paths and URLs only the last part counts.
        Raises ImageError if there is no match or more than one.
        """
        relative = [_relative(name) for name in names]
        for name in relative:
            for folder in self.folders:
                if _is_file(folder / name):
                    return folder / name
        for name in self._looser_names(relative):
            found = self._index.find(name)
            if len(found) > 1:
                raise ImageError(f"Image {name!r} may be {found[0]} or {found[1]}. Keep one of them.")
            if found:
                logger.debug(f"Image {names[0]!r} is taken to be {found[0]}.")
                return found[0]
        searched = " or ".join(map(str, self.folders))
        raise ImageError(
            f"Image {relative[0]!r} is not in {searched}. Name its folder: --support-images DIR."
        )

    def _looser_names(self, relative: list[str]) -> Iterator[str]:
        yield from filter(None, relative)
        for name in relative:
            yield from (file for file in _file_names(name) if self.listed[file] <= 1)

    @cached_property
    def _index(self) -> FileIndex:
        beside = [path for folder in self.folders for path in files_in(folder)]
        return FileIndex([*beside, *files_below(self.recursive)])


def _relative(name: str) -> str:
    """Return a path with forward slashes; of an absolute one or a URL only the file name."""
    if "://" in name:
        with suppress(ValueError):  # no URL after all
            name = urlsplit(name).path
    name = name.replace("\\", "/")
    return name.rpartition("/")[2] if name.startswith("/") or ":" in name else name


def _file_names(name: str) -> list[str]:
    """Return the name of a file without its folders, and the one it had before it was uploaded."""
    file = comparable(name).rpartition("/")[2]
    uploaded = UPLOADED.fullmatch(file)
    return [one for one in (file, uploaded[1] if uploaded else "") if one]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or has a null byte
        return False
