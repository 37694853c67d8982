"""Many small tasks: one class of one data set each, with a gap between support and query images.

Frames of a video and sections of a stack are near-duplicates. If a support image were next to its query, a
copy of the support mask would score well. Support images therefore come from one contiguous block of a
class's images, and queries from the rest, with a gap on both sides. Each draw depends on (seed, set, class,
draw) alone.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kshot.data.base import Dataset
from kshot.data.folder import Folder
from kshot.data.pascal import Pascal
from kshot.data.sampling import Episode, number_below, shuffled
from kshot.errors import DataError
from kshot.io.files import read_lines

PREFIX = "tasks:"
"""Prefix of --data for a suite of tasks."""

FEWEST_QUERIES = 3
"""Smallest number of images beside the support set; classes with fewer are skipped."""


@dataclass(frozen=True)
class TaskSet:
    """A data set with its tasks, one for each class.

    images: the names of each class's images, sorted; numbers in names sort by value.
    apart: keep a gap between supports and queries, as neighbors in that order may be near-duplicates.
    """

    name: str
    dataset: Dataset
    images: dict[int, tuple[str, ...]]
    apart: bool = True


class TaskEpisode(NamedTuple):
    """One episode of a suite. All episodes of one (set, class, draw) have the same support images."""

    set_name: str
    draw: int
    episode: Episode


@dataclass(frozen=True)
class SuiteEpisodes:
    """The episodes of task sets, in the order of sets, classes and draws, and how they were drawn.

    queries: largest number of queries per draw; None: all. left_out: skipped classes, which have too few
    images, as "set: class", with their numbers of images.
    """

    shots: int
    draws: int
    queries: int | None
    seed: int
    episodes: tuple[TaskEpisode, ...]
    left_out: dict[str, int]

    @property
    def sha256(self) -> str:
        """The sha256 of the episodes' JSON without spaces."""
        rows = [[e.set_name, e.draw, *e.episode] for e in self.episodes]
        return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def read_task_sets(path: Path) -> list[TaskSet]:
    """Return the task sets of a folder of folders, or of a text file with one folder per line.

    Lines are relative to the file; `#` starts a comment. Reads every mask.
    Raises DataError if there is no data set, or two have the same name.
    """
    if not path.exists():
        raise DataError(f"There is no folder or file {path}. Give a folder of data sets after {PREFIX}")
    folders = _inside(path) if path.is_dir() else _listed(path)
    if not folders:
        raise DataError(f"{path} contains no data sets. Each is a folder with images/ and masks/.")
    names = [folder.name for folder in folders]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path} lists two data sets called '{twice[0]}'. Rename one of the folders.")
    return [folder_set(folder) for folder in folders]


def folder_set(root: Path) -> TaskSet:
    """Return the task set of a folder with images/ and masks/; its name is the folder's."""
    folder = Folder(root)
    fold = folder.fold()
    return TaskSet(root.name, folder, {c: _by_name(names) for c, names in fold.images.items()})


def pascal_set(root: Path, fold: int) -> TaskSet:
    """Return the task set of a PASCAL-5i fold's val list, with the images that are on disk.

    VOC's images are independent of each other: supports and queries need no gap.
    Raises DataError if folders are missing, or all images of the list.
    """
    dataset = Pascal(root)
    listed = Pascal.read_fold(fold, "val").images
    images = {c: _by_name(n for n in names if dataset.image_path(n).exists()) for c, names in listed.items()}
    if not any(images.values()):
        raise DataError(f"No image of PASCAL-5i's val list of fold {fold} is in {dataset.folder}.")
    return TaskSet(f"PASCAL-5^{fold}", dataset, images, apart=False)


def draw_episodes(
    sets: Sequence[TaskSet], shots: int, draws: int = 3, queries: int | None = 10, seed: int = 0
) -> SuiteEpisodes:
    """Draw `draws` support sets of `shots` images for each class, and up to `queries` queries for each.

    queries: None uses all possible ones.
    Raises DataError if a number is out of range, or no class has enough images.
    """
    _check(shots, draws, queries, seed)
    episodes, left_out = list[TaskEpisode](), dict[str, int]()
    for one in sets:
        for class_id, names in one.images.items():
            if len(names) < shots + FEWEST_QUERIES:
                left_out[f"{one.name}: {one.dataset.class_names[class_id]}"] = len(names)
                continue
            for draw in range(draws):
                key = (seed, one.name, class_id, draw)
                supports, candidates = (_draw_apart if one.apart else _draw_freely)(names, shots, key)
                episodes += [
                    TaskEpisode(one.name, draw, Episode(class_id, query, supports))
                    for query in candidates[:queries]
                ]
    if not episodes:
        most = max(left_out.values(), default=0)
        raise DataError(
            f"No class has enough images: {shots}-shot tasks need {shots + FEWEST_QUERIES}, and the largest "
            f"class has {most}. Use fewer shots, or add images."
        )
    return SuiteEpisodes(shots, draws, queries, seed, tuple(episodes), left_out)


Key = tuple[int, str, int, int]
"""Seed, set, class and draw."""


def _draw_apart(names: Sequence[str], shots: int, key: Key) -> tuple[tuple[str, ...], list[str]]:
    """Draw support images, and return all possible queries in a random order.

    The gap is a tenth of the images on both sides, or less if fewer than three queries would remain.
    """
    number = len(names)
    start = number_below(number, *key)
    rotated = [*names[start:], *names[:start]]
    block = max(shots, number // 3)
    gap = min(number // 10, (number - block - FEWEST_QUERIES) // 2)
    supports = shuffled(rotated[:block], *key, "supports")[:shots]
    return tuple(supports), shuffled(rotated[block + gap : number - gap], *key, "queries")


def _draw_freely(names: Sequence[str], shots: int, key: Key) -> tuple[tuple[str, ...], list[str]]:
    """Draw support images from all images, and return the others as queries in a random order."""
    mixed = shuffled(names, *key)
    return tuple(mixed[:shots]), mixed[shots:]


def _by_name(names: Iterable[str]) -> tuple[str, ...]:
    """Return names sorted with numbers by value: frame 2 before frame 10."""
    return tuple(sorted(names, key=lambda name: [_number_or_text(part) for part in re.split(r"(\d+)", name)]))


def _number_or_text(part: str) -> int | str:
    # `re.split` alternates between text and digits: two names never compare a number with a text.
    return int(part) if part.isdecimal() else part


def _inside(folder: Path) -> list[Path]:
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        raise DataError(
            f"{folder} is one data set, not a folder of them. Give the folder that contains it, or leave out "
            f"{PREFIX}"
        )
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _listed(file: Path) -> list[Path]:
    lines = [line.split("#")[0].strip() for line in read_lines(file)[0]]
    folders = [(file.parent / line).resolve() for line in lines if line]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise DataError(f"{file} lists {missing[0]}, but there is no such folder. Lines are relative to it.")
    return folders


def _check(shots: int, draws: int, queries: int | None, seed: int) -> None:
    wanted = (("number of shots", shots, 1), ("number of draws", draws, 1), ("seed", seed, 0))
    for name, value, low in (*wanted, ("number of queries", 1 if queries is None else queries, 1)):
        if value < low:
            raise DataError(f"The {name} is {value}; it must be {low} or more.")
