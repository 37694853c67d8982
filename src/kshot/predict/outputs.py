"""Where the results of many images go, and which of them are there already."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kshot.annotations.writers import SegmentedImage, check_libraries, labelme_document
from kshot.errors import KshotError
from kshot.io.files import save_image, write_bytes, write_text
from kshot.io.filetypes import FileType, file_type
from kshot.io.overlays import draw_overlay
from kshot.predict.inputs import list_queries
from kshot.predict.resume_log import SETTINGS_FILE, Record, claim, state_of
from kshot.predict.shards import WHOLE, Shard
from kshot.results import SegmentationResult

CLASSES_FILE = "classes.json"
"""Each class's label, in the results' folder, if there are several."""

INSTANCES_FILE = "instances.json"
"""All answers in COCO's format, in the results' folder, if that is asked for."""

ALSO = ("probability", "coco", "labelme")
"""What can be written beside masks, overlays and the contact sheet."""

SUFFIXES: dict[FileType, tuple[str, str]] = {
    "image": (".png", ".npy"),
    "geotiff": (".tif", ".tif"),
    "volume": (".nii.gz", ".nii.gz"),
}
"""Of masks or labels, and of probabilities."""


@dataclass(frozen=True)
class Outputs:
    """Where the results of each query go: `queries` pairs an image with its stem below `folder`."""

    folder: Path
    queries: list[tuple[Path, Path]]
    also: frozenset[str] = frozenset()
    """What is written beside masks and overlays, of ALSO."""
    shard: Shard = WHOLE
    """Which share of all images the queries are."""
    holds_maps: bool = False
    """Whether there are maps among all images: photographs beside them are read in the same windows."""

    @classmethod
    def plan(
        cls, paths: list[Path], folder: Path, also: frozenset[str] = frozenset(), shard: Shard = WHOLE
    ) -> "Outputs":
        """List images, maps and scans, and name their results; earlier results, in `folder`, are none.

        Raises ImageError for what does not exist, KshotError for names that collide, for a folder that
        cannot be made or holds the images themselves, and for what cannot be written also.
        """
        if unknown := sorted(also - set(ALSO)):
            raise KshotError(f"--also says '{unknown[0]}'; what can be written also is {', '.join(ALSO)}.")
        if also & {"coco", "labelme"}:
            check_libraries()
        if any(path.resolve() == folder.resolve() for path in paths):
            raise KshotError(
                f"{folder} holds the images, so it can't take the results. Choose another --out."
            )
        queries = _name_results(list_queries(paths, folder), folder)
        if also & {"coco", "labelme"} and (others := [q for q, _ in queries if file_type(q) != "image"]):
            raise KshotError(
                f"--also coco,labelme are for photographs, and {others[0]} is none. Leave them out: the mask "
                "of a map or a scan knows where it lies."
            )
        own_files = (CLASSES_FILE, SETTINGS_FILE, shard.named(INSTANCES_FILE))
        taken = {Path(name).with_suffix("") for name in own_files}
        if "labelme" in also and (clash := [image for image, stem in queries if stem in taken]):
            raise KshotError(f"{clash[0]} has a name that the results need for another file. Rename it.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KshotError(f"Folder {folder} cannot be made: {error.strerror}.") from error
        holds_maps = any(file_type(image) == "geotiff" for image, _ in queries)
        own = [(image, stem) for image, stem in queries if shard.takes(stem)]
        return cls(folder, own, also, shard, holds_maps)

    def own_file(self, name: str) -> Path:
        """Give the path of a file of which every shard has its own."""
        return self.folder / self.shard.named(name)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Write down what the answers depend on, and each class's label, if there are several.

        Raises KshotError if an earlier run's answers here are of other settings: they would seem to be new.
        """
        claim(self.folder, {**settings, "also": sorted(self.also), "shards": self.shard.count})
        names = settings["classes"]
        if len(names) > 1:
            numbers = {name: label for label, name in enumerate(names, 1)}
            write_text(json.dumps(numbers, indent=2) + "\n", self.folder / CLASSES_FILE)

    def done(self, records: Mapping[str, Record], kind: str) -> dict[Path, Record]:
        """Find the queries that are done: their results are there, and they are as they were when read.

        records: by their results' name. kind: "mask" or "labels".
        """
        found = {}
        for image, stem in self.queries:
            record = records.get(stem.as_posix())
            if record is not None and record.image == str(image) and self._is_done(image, stem, record, kind):
                found[stem] = record
        return found

    def _is_done(self, image: Path, stem: Path, record: Record, kind: str) -> bool:
        try:
            if state_of(image) != record.state:
                return False
            suffix, probability = SUFFIXES[file_type(image)]
        except OSError:
            return False  # whoever reads it says what is wrong with it
        ends = [f"_{kind}{suffix}", "_overlay.png"]
        ends += [f"_probability{probability}"] if "probability" in self.also else []
        ends += [".json"] if "labelme" in self.also else []
        return all((self.folder / f"{stem}{end}").exists() for end in ends)

    def write(self, stem: Path, picture: Image.Image, result: SegmentationResult) -> None:
        """Write one query's mask or labels, overlay and, if wanted, probability; draws on the picture."""
        place = self.folder / stem
        is_one_class = len(result.class_names) == 1
        result.save(place.with_name(f"{stem.name}_{'mask' if is_one_class else 'labels'}.png"))
        draw_overlay(picture, result.labels)
        save_image(picture, place.with_name(f"{stem.name}_overlay.png"))
        if "probability" in self.also:
            content = BytesIO()
            probability = result.class_probabilities[0] if is_one_class else result.class_probabilities
            np.save(content, probability.astype(np.float16))
            write_bytes(content.getbuffer(), place.with_name(f"{stem.name}_probability.npy"))

    def write_labelme(self, stem: Path, image: Path, answer: SegmentedImage) -> None:
        """Write one query's LabelMe file, which finds its photograph from where it lies."""
        path = self.folder / f"{stem}.json"
        relative = Path(os.path.relpath(image.resolve(), path.parent.resolve())).as_posix()
        write_text(json.dumps(labelme_document(answer._replace(file_name=relative))), path)


def _name_results(images: list[tuple[Path, Path]], folder: Path) -> list[tuple[Path, Path]]:
    """Pair each image with its results' stem; images that differ in their suffix only keep it there."""
    stems = Counter(relative.with_suffix("") for _, relative in set(images))
    named: dict[Path, Path] = {}
    for image, relative in images:
        stem = relative.with_suffix("")
        name = relative if stems[stem] > 1 else stem
        if named.setdefault(name, image) != image:
            raise KshotError(
                f"{named[name]} and {image} would both be written as {folder / name}_mask.png. "
                "Give the folder above them, or run the command once for each."
            )
    return [(image, name) for name, image in named.items()]
