"""A user's session: images, labels and results.

Metadata is kept in memory, pixels in files of the session's folder. File names are random ids, never uploaded
names.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kshot.errors import KshotError
from kshot.io.files import save_image, write_bytes
from kshot.segmenter import ClassSupport
from kshot.types import FloatMap, LabelMap, Support
from kshot.web.images import (
    FIRST_CLASS,
    MapName,
    ObjectClass,
    Role,
    SessionImage,
    StoredResult,
    display_name,
)
from kshot.web.limits import LimitExceededError, Limits
from kshot.web.uploads import decode_image


@dataclass(eq=False)
class Session:
    """One user's session. Hold `lock` while reading or changing more than one attribute.

    version: increases when the supports change; results of earlier versions are stale.
    encoded: encoded supports by image id: the image's label version, and the supports by class value;
    those of a negative image have the key 0. fitted: what the model learned from them, by class value.
    """

    id: str
    folder: Path
    limits: Limits
    classes: tuple[ObjectClass, ...] = (FIRST_CLASS,)
    images: dict[str, SessionImage] = field(default_factory=dict)
    version: int = 0
    last_used: float = field(default_factory=time.monotonic)
    is_closed: bool = False
    encoded: dict[str, tuple[int, dict[int, tuple[Support, ...]]]] = field(default_factory=dict)
    fitted: dict[int, ClassSupport] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, data: bytes, role: Role) -> SessionImage:
        """Store an uploaded image. Raises ImageError, or LimitExceededError if the session is full."""
        pixels = decode_image(data, self.limits.pixels)
        image = SessionImage(
            secrets.token_hex(8), display_name(name), role, (pixels.height, pixels.width), len(data)
        )
        with self.lock:
            self._check_space(len(data))
            write_bytes(data, self._upload_path(image))
            self.images[image.id] = image
        return image

    def remove(self, image: SessionImage) -> None:
        """Delete an image with its labels and results."""
        with self.lock:
            if self.images.pop(image.id, None) is None:
                return
            self.encoded.pop(image.id, None)
            if image.is_labelled:
                self._supports_changed()
            for path in self.folder.glob(f"{image.id}.*"):
                path.unlink()

    def set_labels(self, image: SessionImage, labels: LabelMap | None) -> None:
        """Store the user's labels (H, W) of an image, which makes it a support image.

        All-zero labels make it a negative image: it shows no class. None removes the labels.
        Raises LimitExceededError if there are too many support images.
        """
        with self.lock:
            if labels is None:
                if not image.is_labelled:
                    return
                image.is_labelled = image.is_negative = False
                self._labels_path(image).unlink(missing_ok=True)
            else:
                self._check_supports(image)
                save_image(Image.fromarray(labels), self._labels_path(image))
                image.is_labelled, image.is_negative = True, not labels.any()
                image.label_version += 1
            image.problem = image.hint = None
            self._supports_changed()

    def set_classes(self, classes: Sequence[ObjectClass]) -> None:
        """Replace the classes; labels of removed classes become background.

        Raises KshotError if there are no classes, or two with the same value or name.
        """
        values, names = {one.value for one in classes}, {one.name for one in classes}
        if not classes or len(values) < len(classes) or len(names) < len(classes):
            raise KshotError("Give at least one class, each with a unique value and a unique name.")
        with self.lock:
            removed = {one.value for one in self.classes} - values
            self.classes = tuple(classes)
            for image in [one for one in self.images.values() if removed and one.is_labelled]:
                labels = self.labels(image)
                if np.isin(labels, list(removed)).any():
                    labels[np.isin(labels, list(removed))] = 0
                    self.set_labels(image, labels if labels.any() else None)

    def outdated(self) -> list[SessionImage]:
        """Return the queries that need a prediction; none while no image is labelled."""
        with self.lock:
            if not self.has_supports():
                return []
            return [one for one in self.images.values() if self.needs_prediction(one)]

    def has_supports(self) -> bool:
        """Return whether any image has labels of a class."""
        with self.lock:
            return any(one.is_labelled and not one.is_negative for one in self.images.values())

    def needs_prediction(self, image: SessionImage) -> bool:
        """Return whether an image is a query without a prediction, or with a stale one."""
        is_query = image.role == "query" and not image.is_labelled and image.problem is None
        return is_query and (image.result is None or image.result.version != self.version)

    def has_current_labels(self, image: SessionImage) -> bool:
        """Return whether an image of this session has the user's labels or a result that is not stale."""
        result = image.result
        is_current = image.role == "query" and result is not None and result.version == self.version
        return image.id in self.images and (image.is_labelled or is_current)

    def pixels(self, image: SessionImage) -> Image.Image:
        """Return an image's pixels: upright, RGB."""
        return decode_image(self._upload_path(image).read_bytes(), self.limits.pixels)

    def labels(self, image: SessionImage) -> LabelMap:
        """Return the user's labels, or else the predicted ones: uint8 (H, W), values of the classes."""
        with self.lock:
            path = self._labels_path(image)
            if not image.is_labelled:
                if image.result is None:
                    raise KshotError(f"'{image.name}' has no labels and no result yet.")
                path = self._result_path(image, image.result.version, "labels")
            with Image.open(path) as labels:
                return np.array(labels)

    def probability_map(self, image: SessionImage, name: MapName, value: int) -> Image.Image:
        """Return a probability map of a class as grey levels, 0 to 255."""
        with self.lock:
            result = image.result
            if result is None or name not in result.maps or value not in result.class_values:
                raise KshotError(f"'{image.name}' has no {name.replace('_', ' ')} of class {value}.")
            with Image.open(self._result_path(image, result.version, f"{value}.{name}")) as levels:
                levels.load()
                return levels

    def store_result(
        self,
        image: SessionImage,
        version: int,
        labels: LabelMap,
        maps: dict[int, dict[MapName, FloatMap]],
        confidence: float,
    ) -> None:
        """Store a prediction, unless the supports have changed since `version`.

        labels: (H, W), values of the classes. maps: of each class, by its value; probabilities in [0, 1].
        """
        files: dict[str, Any] = {"labels": labels}
        for value, by_name in maps.items():
            for name, probabilities in by_name.items():
                files[f"{value}.{name}"] = (probabilities * 255).round().astype(np.uint8)
        with self.lock:
            if self.is_closed or self.version != version or self.images.get(image.id) is not image:
                return
            for kind, levels in files.items():
                save_image(Image.fromarray(levels), self._result_path(image, version, kind))
            earlier, names = image.result, next(iter(maps.values()))
            image.result = StoredResult(version, confidence, tuple(names), tuple(maps))
            if earlier is not None and earlier.version != version:
                for path in self.folder.glob(f"{image.id}.{earlier.version}.*"):
                    path.unlink()

    def store_problem(self, image: SessionImage, version: int, problem: str) -> None:
        """Store why an image has no prediction, unless the supports have changed since `version`."""
        with self.lock:
            if self.version == version:
                image.problem = problem

    def colour(self, value: int) -> tuple[int, int, int]:
        """Return the RGB colour of a class; other values are black."""
        return next((one.rgb for one in self.classes if one.value == value), (0, 0, 0))

    def close(self) -> None:
        """Delete all images, labels and results."""
        with self.lock:
            self.is_closed = True
            self.images.clear()
            self.encoded.clear()
            self.fitted.clear()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _supports_changed(self) -> None:
        self.version += 1
        for one in self.images.values():
            if not one.is_labelled:
                one.problem = None

    def _check_space(self, num_bytes: int) -> None:
        if self.is_closed:
            raise KshotError("This session was closed. Start a new one.")
        if len(self.images) >= self.limits.images:
            raise LimitExceededError(
                f"This session has {len(self.images)} images, which is the maximum. Remove some, or start a "
                "new session."
            )
        used = sum(one.num_bytes for one in self.images.values())
        if used + num_bytes > self.limits.session_bytes:
            raise LimitExceededError(
                f"This session has {used / 2**20:.0f} MB of images; the maximum is "
                f"{self.limits.session_bytes / 2**20:.0f} MB. Remove some, or start a new session."
            )

    def _check_supports(self, image: SessionImage) -> None:
        labelled = [one for one in self.images.values() if one.is_labelled and one is not image]
        if len(labelled) >= self.limits.supports:
            raise LimitExceededError(
                f"This session has {len(labelled)} labelled images, which is the maximum. One to five are "
                "usually enough; remove one first."
            )

    def _upload_path(self, image: SessionImage) -> Path:
        return self.folder / f"{image.id}.upload"

    def _labels_path(self, image: SessionImage) -> Path:
        return self.folder / f"{image.id}.labels.png"

    def _result_path(self, image: SessionImage, version: int, kind: str) -> Path:
        return self.folder / f"{image.id}.{version}.{kind}.png"
