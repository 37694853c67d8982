"""Build the data folder of PASCAL-5i from its two official archives: VOC 2012 and SBD.

SBD has masks for four times as many images as VOC, but without VOC's border of 255 around every object. If
both have a mask, VOC's is used.
"""

import hashlib
import json
import re
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.data.folds import PASCAL_CLASSES
from kshot.data.pascal import IMAGES, MASKS
from kshot.errors import DataError, reason_of
from kshot.io.files import atomic_write, encode_image, write_bytes
from kshot.io.mask_values import first_few
from kshot.types import IGNORE_INDEX


@dataclass(frozen=True)
class Archive:
    """An official archive: file name, URL and md5."""

    name: str
    url: str
    md5: str


VOC_ARCHIVE = Archive(
    "VOCtrainval_11-May-2012.tar",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    "6cd6e144f989b92b3379bac3b3de84fd",
)

SBD_ARCHIVE = Archive(
    "benchmark.tgz",
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    "82b4d87ceb2ed10f6038a1cba92111cb",
)

VOC_IMAGES = "VOCdevkit/VOC2012/JPEGImages"
VOC_MASKS = "VOCdevkit/VOC2012/SegmentationClass"
SBD_MASKS = "benchmark_RELEASE/dataset/cls"

SUFFIXES = {VOC_IMAGES: ".jpg", VOC_MASKS: ".png", SBD_MASKS: ".mat"}
"""Folders of the archives that are read, and the suffix of their files."""

NUM_CLASSES = len(PASCAL_CLASSES)
"""Number of classes, which count from 1; 0 is background."""

NOTE = "PREPARED.json"


@dataclass(frozen=True)
class Prepared:
    """The folder VOC2012 and its contents; SBD's masks are those of images without a VOC mask."""

    folder: Path
    num_images: int
    num_voc_masks: int
    num_sbd_masks: int
    warnings: tuple[str, ...]


def prepare_pascal(
    root: Path, archives: Path | None = None, report: Callable[[str], None] = print
) -> Prepared:
    """Build `root`/VOC2012 from the archives in `archives` (default: `root`); download missing ones.

    Raises DataError for an archive that cannot be downloaded. Bad files raise one DataError after all good
    files are written. PREPARED.json is written only if there are none.
    """
    _loadmat()  # report a missing package before gigabytes are downloaded
    voc, sbd = _find_all(root if archives is None else archives, report)
    warnings = tuple(file.warning() for file in (voc, sbd) if not file.is_official)
    for warning in warnings:
        report(f"Warning: {warning}")
    build = _Build(root / "VOC2012")
    build.clear_leftovers()
    build.take_voc(voc, report)
    build.take_sbd(sbd, report)
    if build.problems:
        raise build.failure()
    build.write_note(voc, sbd)
    return Prepared(build.folder, len(build.sizes), len(build.voc_masks), len(build.sbd_masks), warnings)


class _File(NamedTuple):
    """An archive on disk, and its md5."""

    archive: Archive
    path: Path
    md5: str

    @property
    def is_official(self) -> bool:
        return self.md5 == self.archive.md5

    def warning(self) -> str:
        return (
            f"{self.path} is not the official archive: its md5 is {self.md5}, the official one's is "
            f"{self.archive.md5}. It is used anyway; delete it to download {self.archive.url} instead."
        )

    def advice(self) -> str:
        if self.is_official:
            return f"{self.path} is the official archive, so this is a bug in kshot: please report it."
        return (
            f"{self.path} has the md5 {self.md5}, the official archive {self.archive.md5}. "
            f"Delete it and run this again to download {self.archive.url}."
        )


class _Member(NamedTuple):
    """A file in an archive; the name has no folder and no suffix."""

    file: _File
    folder: str
    name: str
    contents: bytes


@dataclass
class _Build:
    """One run: the files written to `folder`, and the problems of each archive."""

    folder: Path
    sizes: dict[str, tuple[int, int] | None] = field(default_factory=dict)  # None: a bad image
    voc_masks: set[str] = field(default_factory=set)
    sbd_masks: set[str] = field(default_factory=set)
    problems: list[tuple[_File, str]] = field(default_factory=list)
    has_all_images: bool = True

    def clear_leftovers(self) -> None:
        """Remove the note of an earlier run, and unfinished files of an interrupted one."""
        leftovers = [self.folder / NOTE]
        for folder in (self.folder, self.folder / IMAGES, self.folder / MASKS):
            leftovers += folder.glob(".kshot-*")
        for path in leftovers:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _write_error(path, error) from error

    def take_voc(self, file: _File, report: Callable[[str], None]) -> None:
        """Write every image, then VOC's masks, whose sizes are checked against the images."""
        report(f"Reading {file.path}")
        masks: dict[str, _Member] = {}
        for member in self._members(file, VOC_IMAGES, VOC_MASKS):
            if member.folder == VOC_IMAGES:
                self._take_image(member)
            else:
                masks[member.name] = member
        for member in masks.values():
            self._take_mask(member, _voc_values)
        self.voc_masks = set(masks)
        report(f"{file.archive.name}: {len(self.sizes)} images, {len(masks)} masks")

    def take_sbd(self, file: _File, report: Callable[[str], None]) -> None:
        """Write SBD's masks of the images without a VOC mask; a bad VOC mask is not replaced."""
        report(f"Reading {file.path}")
        for member in self._members(file, SBD_MASKS):
            if member.name not in self.voc_masks:
                self._take_mask(member, _sbd_values)
                self.sbd_masks.add(member.name)
        report(f"{file.archive.name}: {len(self.sbd_masks)} masks that VOC lacks")

    def failure(self) -> DataError:
        """Return one error with a line for each problem, and what to do."""
        files = dict.fromkeys(file for file, _ in self.problems)
        return DataError(
            "\n".join(
                [
                    f"{self.folder} is not complete; all readable files are written. Problems:",
                    *(f"- {problem}" for _, problem in self.problems),
                    *(file.advice() for file in files),
                ]
            )
        )

    def write_note(self, *files: _File) -> None:
        """Write PREPARED.json: the archives, and the numbers of images and masks."""
        archives = [
            {
                "name": file.archive.name,
                "url": file.archive.url,
                "md5": file.md5,
                "official_md5": file.archive.md5,
            }
            for file in files
        ]
        counts = {
            "num_images": len(self.sizes),
            "num_voc_masks": len(self.voc_masks),
            "num_sbd_masks": len(self.sbd_masks),
        }
        note = json.dumps({"archives": archives, **counts}, indent=2) + "\n"
        _write(self.folder / NOTE, note.encode())

    def _members(self, file: _File, *folders: str) -> Iterator[_Member]:
        """Yield the files of some folders in one pass; record missing folders and damage."""
        absent = dict.fromkeys(folders)
        try:
            for member in _read_archive(file, folders):
                absent.pop(member.folder, None)
                yield member
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            self.problems.append((file, f"{file.archive.name} cannot be read to its end: {reason_of(error)}"))
            self.has_all_images &= VOC_IMAGES not in folders
            return
        for folder in absent:
            problem = f"{file.archive.name} has no folder {folder} with {SUFFIXES[folder]} files"
            self.problems.append((file, problem))

    def _take_image(self, member: _Member) -> None:
        try:
            self.sizes[member.name] = _size_of_jpeg(member.contents)
        except DataError as error:
            self.sizes[member.name] = None
            self._note_problem(member, error)
            return
        _write(self.folder / IMAGES / f"{member.name}.jpg", member.contents)

    def _take_mask(self, member: _Member, read: Callable[[bytes], NDArray[np.uint8]]) -> None:
        if member.name not in self.sizes and not self.has_all_images:
            return  # the damage is recorded already
        try:
            values = read(member.contents)
            self._check_size(member.name, values)
        except DataError as error:
            self._note_problem(member, error)
            return
        if self.sizes[member.name] is not None:
            _write(self.folder / MASKS / f"{member.name}.png", _palette_png(values))

    def _check_size(self, name: str, values: NDArray[np.uint8]) -> None:
        if name not in self.sizes:
            raise DataError(f"there is no image {VOC_IMAGES}/{name}.jpg")
        size = self.sizes[name]
        if size is not None and values.shape != size:
            (height, width), (image_height, image_width) = values.shape, size
            raise DataError(
                f"the mask is {width} x {height} pixels, but its image is {image_width} x {image_height}"
            )

    def _note_problem(self, member: _Member, error: DataError) -> None:
        path = f"{member.folder}/{member.name}{SUFFIXES[member.folder]}"
        self.problems.append((member.file, f"{member.file.archive.name}: {path}: {error}"))


def _find_all(folder: Path, report: Callable[[str], None]) -> list[_File]:
    """Find or download every archive; raise one error for all that are missing."""
    files, reasons = [], []
    for archive in (VOC_ARCHIVE, SBD_ARCHIVE):
        try:
            files.append(_find(archive, folder / archive.name, report))
        except DataError as error:
            reasons.append(str(error))
    if reasons:
        raise DataError("\n".join(reasons))
    return files


def _find(archive: Archive, path: Path, report: Callable[[str], None]) -> _File:
    if path.exists():
        report(f"Checking {path}")
        return _File(archive, path, _md5(path))
    report(f"Downloading {archive.url} to {path}")
    try:
        _download(archive, path)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{path} does not exist, and {archive.url} cannot be downloaded ({reason_of(error)}). "
            f"On a machine with a network, download that file (md5 {archive.md5}), and put it at {path}, or "
            "into the folder that --archives names."
        ) from error
    return _File(archive, path, archive.md5)


def _download(archive: Archive, path: Path) -> None:
    import torch.hub

    with atomic_write(path) as temporary:
        torch.hub.download_url_to_file(archive.url, str(temporary), progress=sys.stderr.isatty())
        md5 = _md5(temporary)
        if md5 != archive.md5:
            raise DataError(
                f"The download of {archive.url} has the md5 {md5}, but the official archive {archive.md5}; "
                f"it was deleted. Run this again, or download the file elsewhere and put it at {path}."
            )


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"Archive {path} cannot be read: {error.strerror}.") from error


def _read_archive(file: _File, folders: tuple[str, ...]) -> Iterator[_Member]:
    """Yield the regular files in `folders` with the expected suffix and plain names, and nothing else."""
    with tarfile.open(file.path, "r:gz" if file.path.suffix == ".tgz" else "r:") as tar:
        for entry in tar:
            folder, _, base = entry.name.removeprefix("./").rpartition("/")
            if folder not in folders or not entry.isreg():
                continue
            name = base.removesuffix(SUFFIXES[folder])
            contents = tar.extractfile(entry)
            if name != base and re.fullmatch(r"[A-Za-z0-9_-]+", name) and contents:
                yield _Member(file, folder, name, contents.read())
        if not file.is_official:
            _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless only zeros follow: tarfile takes a broken header for the end."""
    num_bytes = 0
    while tar.fileobj and (block := tar.fileobj.read(1 << 20)):
        num_bytes += len(block)
        if any(block):
            raise tarfile.ReadError("a broken header")
    if not num_bytes:
        raise tarfile.ReadError("unexpected end of data")


def _size_of_jpeg(contents: bytes) -> tuple[int, int]:
    """Return (height, width) as stored: masks ignore an image's EXIF orientation."""
    try:
        with Image.open(BytesIO(contents), formats=["JPEG"]) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise DataError("it is not a JPEG that can be read") from None


def _voc_values(contents: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(BytesIO(contents), formats=["PNG"]) as image:
            mode, values = image.mode, np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise DataError("it is not a complete PNG") from None
    if mode not in ("P", "L"):
        raise DataError(f"it is an image in mode {mode}, but a mask is a palette image (mode P)")
    return _checked(values, IGNORE_INDEX)


def _sbd_values(contents: bytes) -> NDArray[np.uint8]:
    loadmat = _loadmat()
    try:
        variables = loadmat(BytesIO(contents), variable_names=["GTcls"])
    except Exception as error:  # scipy's reader can raise any exception on broken bytes
        raise DataError(f"it is not a MATLAB file that can be read ({reason_of(error)})") from error
    try:
        values = np.asarray(variables["GTcls"]["Segmentation"][0, 0])
    except (KeyError, IndexError, ValueError, TypeError):
        raise DataError("it has no GTcls.Segmentation") from None
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise DataError(
            f"its GTcls.Segmentation has shape {values.shape} and type {values.dtype}; "
            "it must be (H, W), of integers"
        )
    return _checked(values)


def _checked(values: NDArray[Any], *others: int) -> NDArray[np.uint8]:
    """Return a mask as uint8. Raises DataError for values other than classes, background and `others`."""
    wrong = np.setdiff1d(values, [*range(NUM_CLASSES + 1), *others])
    if wrong.size:
        allowed = " and ".join([f"0 to {NUM_CLASSES}", *map(str, others)])
        raise DataError(f"the mask contains {first_few(wrong.tolist())}; allowed are {allowed}")
    return values.astype(np.uint8)


def _loadmat() -> Callable[..., dict[str, Any]]:
    """Return scipy's reader of MATLAB files; scipy is optional."""
    try:
        loadmat: Callable[..., dict[str, Any]] = import_module("scipy.io").loadmat
    except ImportError as error:
        raise DataError(
            f"SBD's masks are MATLAB files. Reading them needs scipy, which cannot be imported "
            f"({reason_of(error)}). Run `pip install scipy`."
        ) from error
    return loadmat


def _color_map() -> list[int]:
    """Return VOC's 256 colors: every three bits of an index are red's, green's and blue's next lower bit."""
    colors = []
    for index in range(256):
        for channel in range(3):
            bits = [index >> (3 * position + channel) & 1 for position in range(3)]
            colors.append(sum(bit << (7 - position) for position, bit in enumerate(bits)))
    return colors


COLOR_MAP = _color_map()


def _palette_png(values: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(values)
    image.putpalette(COLOR_MAP)
    return encode_image(image, "PNG")


def _write(path: Path, contents: bytes) -> None:
    """Write a file atomically, unless it has these bytes already."""
    try:
        if path.is_file() and path.read_bytes() == contents:
            return
        write_bytes(contents, path)
    except OSError as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be written: {error.strerror}. Free space or choose another --root.")
