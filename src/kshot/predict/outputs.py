"""Name and write the result files of many images, and find which exist already."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from kshot.annotations.writers import SegmentedImage, check_libraries, labelme_document
from kshot.errors import KshotError
from kshot.io.files import save_image, write_bytes, write_text
from kshot.io.filetypes import FileType, file_type
from kshot.io.overlays import draw_overlay
from kshot.predict.inputs import list_queries
from kshot.predict.resume_log import SETTINGS_FILE, ImageRecord, check_settings, fingerprint
from kshot.predict.shards import WHOLE, Shard

if TYPE_CHECKING:
    from kshot.results import SegmentationResult

CLASSES_FILE = "classes.json"
"""The label of each class, in the results folder, if there are several classes."""

INSTANCES_FILE = "instances.json"
"""All results in COCO's format, in the results folder, if requested."""

ALSO = ("probability", "coco", "labelme")
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
    """

    folder: Path
    queries: list[tuple[Path, Path]]
    also: frozenset[str] = frozenset()
    shard: Shard = WHOLE

    @classmethod
    def from_paths(
        cls, paths: list[Path], folder: Path, also: frozenset[str] = frozenset(), shard: Shard = WHOLE
    ) -> "Outputs":
        """Find the queries in files and folders, name their results, and make the results folder.

        Earlier results in `folder` are not queries.
        Raises ImageError for a path that does not exist; KshotError for names that collide, a folder that
        cannot be made or holds the images, and an unknown or impossible `also`.
        """
        if unknown := sorted(also - set(ALSO)):
            raise KshotError(f"--also is '{unknown[0]}'; it must be one or more of {', '.join(ALSO)}.")
        if also & {"coco", "labelme"}:
            check_libraries()
        if any(path.resolve() == folder.resolve() for path in paths):
            raise KshotError(f"{folder} holds the images, so results cannot go there. Choose another --out.")
        queries = _name_results(list_queries(paths, folder), folder)
        if also & {"coco", "labelme"} and (
            others := [path for path, _ in queries if file_type(path) != "image"]
        ):
            raise KshotError(
                f"--also coco,labelme work for ordinary images only; {others[0]} is a GeoTIFF or a volume. "
                "Leave them out: the mask file has the coordinates of its input."
            )
        reserved_files = (CLASSES_FILE, SETTINGS_FILE, shard.named(INSTANCES_FILE))
        reserved = {Path(name).with_suffix("") for name in reserved_files}
        if "labelme" in also and (clash := [path for path, name in queries if name in reserved]):
            raise KshotError(f"{clash[0]} has a name that the results need for another file. Rename it.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KshotError(f"Folder {folder} cannot be made: {error.strerror}.") from error
        return cls(folder, [(path, name) for path, name in queries if shard.takes(name)], also, shard)

    def shard_path(self, file_name: str) -> Path:
        """Return the path of a file that each shard writes under its own name."""
        return self.folder / self.shard.named(file_name)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings that results depend on, and each class's label if there are several classes.

        Raises KshotError if the folder holds results with other settings.
        """
        check_settings(self.folder, {**settings, "also": sorted(self.also), "shards": self.shard.count})
        class_names = settings["classes"]
        if len(class_names) > 1:
            labels = {name: label for label, name in enumerate(class_names, 1)}
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
            suffix, probability_suffix = SUFFIXES[file_type(path)]
        except OSError:
            return False  # reading the image will report what is wrong with it
        ends = [f"_{kind}{suffix}", "_overlay.png"]
        ends += [f"_probability{probability_suffix}"] if "probability" in self.also else []
        ends += [".json"] if "labelme" in self.also else []
        return all((self.folder / f"{name}{end}").exists() for end in ends)

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

    def write_labelme(self, name: Path, source: Path, segmented: SegmentedImage) -> None:
        """Write a query's LabelMe file, which refers to the image by a path relative to the file."""
        path = self.folder / f"{name}.json"
        relative = Path(os.path.relpath(source.resolve(), path.parent.resolve())).as_posix()
        write_text(json.dumps(labelme_document(segmented._replace(file_name=relative))), path)


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
