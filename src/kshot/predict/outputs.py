"""Name and write the result files of many images, and find which exist already."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kshot.annotations.writers.base import Format, MapFormat
from kshot.annotations.writers.formats import FORMATS, MAP_FORMATS
from kshot.errors import KshotError
from kshot.io.files import save_image, write_bytes, write_text
from kshot.io.filetypes import FileType, file_type
from kshot.io.folders import SETTINGS_FILE
from kshot.io.overlays import draw_overlay
from kshot.predict.inputs import list_queries
from kshot.predict.resume_log import ImageRecord, check_settings, fingerprint
from kshot.predict.shards import WHOLE, Shard
from kshot.results.instances import DEFAULT_INSTANCES, InstanceOptions

if TYPE_CHECKING:
    from kshot.results import SegmentationResult

CLASSES_FILE = "classes.json"
"""The label of each class, in the results folder, if there are several classes."""

ALSO = ("probability", *FORMATS, *MAP_FORMATS)
"""What can be written beside masks, overlays and the contact sheet."""

SUFFIXES: dict[FileType, tuple[str, str]] = {
    "image": (".png", ".npy"),
    "geotiff": (".tif", ".tif"),
    "volume": (".nii.gz", ".nii.gz"),
}
"""Suffixes of masks or labels, and of probabilities."""


@dataclass(frozen=True)
class Outputs:
    """The result files of all queries.

    queries: pairs of an image's path and the name of its results, a path relative to `folder` without suffix.
    also: what is written beside masks and overlays, of ALSO. shard: the share of all images that these are.
    instances: how these are found, for the formats that hold them.
    """

    folder: Path
    queries: list[tuple[Path, Path]]
    also: frozenset[str] = frozenset()
    shard: Shard = WHOLE
    instances: InstanceOptions = DEFAULT_INSTANCES

    @property
    def formats(self) -> list[Format]:
        """The formats that are written of ordinary images."""
        return [FORMATS[name] for name in sorted(self.also & FORMATS.keys())]

    @property
    def map_formats(self) -> list[MapFormat]:
        """The formats that are written of GeoTIFFs."""
        return [MAP_FORMATS[name] for name in sorted(self.also & MAP_FORMATS.keys())]

    @classmethod
    def from_paths(
        cls,
        paths: list[Path],
        folder: Path,
        also: frozenset[str] = frozenset(),
        shard: Shard = WHOLE,
        instances: InstanceOptions = DEFAULT_INSTANCES,
    ) -> "Outputs":
        """Find the queries in files and folders, name their results, and make the results folder.

        Earlier results in `folder` are not queries.
        Raises ImageError for a path that does not exist; KshotError for names that collide, a folder that
        cannot be made or holds the images, and an unknown or impossible `also`.
        """
        if unknown := sorted(also - set(ALSO)):
            raise KshotError(f"--also is '{unknown[0]}'; it must be one or more of {', '.join(ALSO)}.")
        for name in also & {*FORMATS, *MAP_FORMATS}:
            (FORMATS.get(name) or MAP_FORMATS[name]).check_libraries()
        if any(path.resolve() == folder.resolve() for path in paths):
            raise KshotError(f"{folder} holds the images, so results cannot go there. Choose another --out.")
        named = _name_results(list_queries(paths, folder), folder)
        queries = [(path, name) for path, name in named if shard.takes(name)]
        outputs = cls(folder, queries, also, shard, instances)
        outputs._check_queries(named)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KshotError(f"Folder {folder} cannot be made: {error.strerror}.") from error
        return outputs

    def _check_queries(self, queries: list[tuple[Path, Path]]) -> None:
        """Raise KshotError for a query that the formats cannot hold, or whose file is that of the run."""
        if not self.formats and not self.map_formats:
            return
        of_run = {CLASSES_FILE, SETTINGS_FILE}
        for one in self.formats:
            of_run |= {*map(self.shard.named, one.run_files), *one.class_files}
        for path, name in queries:
            kind = file_type(path)
            given = {"image": self.also & FORMATS.keys(), "geotiff": self.also & MAP_FORMATS.keys()}
            if not given.get(kind):
                raise KshotError(
                    f"--also {','.join(sorted(self.also))} cannot hold {path}. {', '.join(FORMATS)} are for "
                    f"ordinary images, {', '.join(MAP_FORMATS)} for GeoTIFFs; for a volume, leave them out: "
                    "its mask has its coordinates."
                )
            if of_run & {*self._own_files(name, kind)}:
                raise KshotError(f"{path} has a name that the results need for another file. Rename it.")

    def _own_files(self, name: Path, kind: FileType) -> list[str]:
        """Return the names of a query's files in the formats, relative to the folder."""
        patterns = [one.file for one in self.map_formats] if kind == "geotiff" else []
        if kind == "image":
            patterns = [pattern for one in self.formats for pattern in one.image_files]
        return [pattern.format(name=name.as_posix()) for pattern in patterns]

    def shard_path(self, file_name: str) -> Path:
        """Return the path of a file that each shard writes under its own name."""
        return self.folder / self.shard.named(file_name)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings that results depend on, and each class's label if there are several classes.

        Raises KshotError if the folder holds results with other settings.
        """
        own = {"also": sorted(self.also), "shards": self.shard.count}
        if self.formats or self.map_formats:
            own["instances"] = self.instances.model_dump()
        check_settings(self.folder, {**settings, **own})
        class_names = settings["classes"]
        if len(class_names) > 1:
            labels = dict(zip(class_names, settings["class_values"], strict=True))
            write_text(json.dumps(labels, indent=2) + "\n", self.folder / CLASSES_FILE)

    def find_done(self, records: Mapping[str, ImageRecord], kind: str) -> dict[Path, ImageRecord]:
        """Return the records of unchanged queries whose results all exist, by the name of the results.

        records: by the name of the results. kind: "mask" or "labels".
        """
        found = {}
        for path, name in self.queries:
            record = records.get(name.as_posix())
            if record is not None and record.image == str(path) and self._is_done(path, name, record, kind):
                found[name] = record
        return found

    def _is_done(self, path: Path, name: Path, record: ImageRecord, kind: str) -> bool:
        try:
            if fingerprint(path) != record.state:
                return False
            file_kind = file_type(path)
            suffix, probability_suffix = SUFFIXES[file_kind]
        except OSError:
            return False  # reading the image will report what is wrong with it
        ends = [f"_{kind}{suffix}", "_overlay.png"]
        ends += [f"_probability{probability_suffix}"] if "probability" in self.also else []
        names = [f"{name}{end}" for end in ends] + self._own_files(name, file_kind)
        return all((self.folder / one).exists() for one in names)

    def write(self, name: Path, image: Image.Image, result: "SegmentationResult") -> None:
        """Write a query's mask or labels, overlay and, if requested, probability; draws on `image`."""
        path = self.folder / name
        is_one_class = len(result.class_names) == 1
        result.save(path.with_name(f"{name.name}_{'mask' if is_one_class else 'labels'}.png"))
        draw_overlay(image, result.labels)
        save_image(image, path.with_name(f"{name.name}_overlay.png"))
        if "probability" in self.also:
            content = BytesIO()
            probability = result.class_probabilities[0] if is_one_class else result.class_probabilities
            np.save(content, probability.astype(np.float16))
            write_bytes(content.getbuffer(), path.with_name(f"{name.name}_probability.npy"))

    def write_formats(self, name: Path, source: Path, result: "SegmentationResult") -> dict[str, Any]:
        """Write a query's files of the formats; return its entries in the files of the run, by format."""
        formats = {key: FORMATS[key] for key in sorted(self.also & FORMATS.keys())}
        if not formats:
            return {}
        instances = result.instances(**self.instances.model_dump())
        for one in formats.values():
            for pattern, content in one.image_files.items():
                path = self.folder / pattern.format(name=name.as_posix())
                relative = Path(os.path.relpath(source.resolve(), path.parent.resolve())).as_posix()
                write_bytes(content(relative, result, instances), path)
        file_name = (name.parent / source.name).as_posix()
        return {key: one.entry(file_name, result, instances) for key, one in formats.items() if one.entry}

    def write_run_files(self, records: Sequence[ImageRecord], class_values: Mapping[str, int]) -> None:
        """Write the files of the formats that cover all images. class_values: each class's in label maps."""
        for key in sorted(self.also & FORMATS.keys()):
            entries = [record.entries[key] for record in records if key in record.entries]
            for file_name, content in FORMATS[key].run_files.items():
                write_bytes(content(entries, class_values), self.shard_path(file_name))
            for file_name, class_content in FORMATS[key].class_files.items():
                write_bytes(class_content(class_values), self.folder / file_name)


def _name_results(images: list[tuple[Path, Path]], folder: Path) -> list[tuple[Path, Path]]:
    """Pair each image with the name of its results: without suffix, unless images differ only in it."""
    counts = Counter(relative.with_suffix("") for _, relative in set(images))
    named: dict[Path, Path] = {}
    for path, relative in images:
        stem = relative.with_suffix("")
        name = relative if counts[stem] > 1 else stem
        if named.setdefault(name, path) != path:
            raise KshotError(
                f"{named[name]} and {path} would both be written as {folder / name}_mask.png. "
                "Give the folder above them, or run the command once for each."
            )
    return [(path, name) for name, path in named.items()]
