"""A person's photographs, labels and results: what is kept while they work.

Facts are kept in memory, pixels in files of the session's own folder. Files are named by ids that are made
here, never by what somebody sent.
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
from kshot.io.files import save_picture, write_bytes
from kshot.methods.tiling import FloatMap
from kshot.types import LabelMap, Support
from kshot.web.images import FIRST_CLASS, ObjectClass, Photograph, Result, Role, Step, plain_name
from kshot.web.limits import Limits, TooMuchError
from kshot.web.uploads import read_photograph


@dataclass(eq=False)
class Session:
    """One person's work. Hold `lock` to read or change more than one fact.

    version: rises when the supports change; results of earlier versions are stale.
    read: the supports that the model has read, by photograph; each with its drawing's number. They go by
    their class's value; a negative's have 0.
    """

    id: str
    folder: Path
    limits: Limits
    classes: tuple[ObjectClass, ...] = (FIRST_CLASS,)
    photographs: dict[str, Photograph] = field(default_factory=dict)
    version: int = 0
    touched: float = field(default_factory=time.monotonic)
    is_closed: bool = False
    read: dict[str, tuple[int, dict[int, tuple[Support, ...]]]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, name: str, data: bytes, role: Role) -> Photograph:
        """Keep a photograph, as it was sent. Raises ImageError, or TooMuchError for a full session."""
        picture = read_photograph(data, self.limits.pixels)
        photograph = Photograph(
            secrets.token_hex(8), plain_name(name), role, (picture.height, picture.width), len(data)
        )
        with self.lock:
            self._check_space(len(data))
            write_bytes(data, self._photo_path(photograph))
            self.photographs[photograph.id] = photograph
        return photograph

    def remove(self, photograph: Photograph) -> None:
        """Forget a photograph, and its labels if it has any."""
        with self.lock:
            if self.photographs.pop(photograph.id, None) is None:
                return
            self.read.pop(photograph.id, None)
            if photograph.is_drawn:
                self._supports_changed()
            for path in self.folder.glob(f"{photograph.id}.*"):
                path.unlink()

    def draw(self, photograph: Photograph, labels: LabelMap | None) -> None:
        """Keep the labels (H, W) that somebody drew on a photograph, which makes it a support.

        Labels of nothing but 0 make it a negative: nothing in it is of any class. None takes labels away.
        Raises TooMuchError for too many supports.
        """
        with self.lock:
            if labels is None:
                if not photograph.is_drawn:
                    return
                photograph.is_drawn = photograph.is_negative = False
                self._labels_path(photograph).unlink(missing_ok=True)
            else:
                self._check_supports(photograph)
                save_picture(Image.fromarray(labels), self._labels_path(photograph))
                photograph.is_drawn, photograph.is_negative = True, not labels.any()
                photograph.drawings += 1
            photograph.problem = photograph.hint = None
            self._supports_changed()

    def set_classes(self, classes: Sequence[ObjectClass]) -> None:
        """Take a new list of classes; what was drawn of those that are gone becomes background.

        Raises KshotError if there is none, or two have one value or name.
        """
        values, names = {one.value for one in classes}, {one.name for one in classes}
        if not classes or len(values) < len(classes) or len(names) < len(classes):
            raise KshotError(
                "There must be at least one class, and each needs a value and a name of its own."
            )
        with self.lock:
            gone = {one.value for one in self.classes} - values
            self.classes = tuple(classes)
            for photograph in [one for one in self.photographs.values() if gone and one.is_drawn]:
                labels = self.labels(photograph)
                if np.isin(labels, list(gone)).any():
                    labels[np.isin(labels, list(gone))] = 0
                    self.draw(photograph, labels if labels.any() else None)

    def outdated(self) -> list[Photograph]:
        """Give the queries that need an answer; none while nothing is drawn."""
        with self.lock:
            if not self.has_supports():
                return []
            return [one for one in self.photographs.values() if self.needs_answer(one)]

    def has_supports(self) -> bool:
        """Say whether any photograph has drawn labels of a class."""
        with self.lock:
            return any(one.is_drawn and not one.is_negative for one in self.photographs.values())

    def needs_answer(self, photograph: Photograph) -> bool:
        """Say whether a photograph is a query without an answer, or with a stale one."""
        is_query = photograph.role == "query" and not photograph.is_drawn and photograph.problem is None
        return is_query and (photograph.result is None or photograph.result.version != self.version)

    def has_answer(self, photograph: Photograph) -> bool:
        """Say whether a photograph, if it is still here, has labels or a result that is not stale."""
        result = photograph.result
        is_current = photograph.role == "query" and result is not None and result.version == self.version
        return photograph.id in self.photographs and (photograph.is_drawn or is_current)

    def picture(self, photograph: Photograph) -> Image.Image:
        """Decode a photograph: upright, RGB."""
        return read_photograph(self._photo_path(photograph).read_bytes(), self.limits.pixels)

    def labels(self, photograph: Photograph) -> LabelMap:
        """Give what was drawn on a photograph, else what was found: uint8 (H, W), the classes' values."""
        with self.lock:
            path = self._labels_path(photograph)
            if not photograph.is_drawn:
                if photograph.result is None:
                    raise KshotError(f"'{photograph.name}' has no labels and no result yet.")
                path = self._result_path(photograph, photograph.result.version, "labels")
            with Image.open(path) as picture:
                return np.array(picture)

    def step(self, photograph: Photograph, step: Step, value: int) -> Image.Image:
        """Give a class's probabilities after a step of the method, as grey levels."""
        with self.lock:
            result = photograph.result
            if result is None or step not in result.steps or value not in result.values:
                raise KshotError(f"'{photograph.name}' has no {step.replace('_', ' ')} of class {value}.")
            with Image.open(self._result_path(photograph, result.version, f"{value}.{step}")) as picture:
                picture.load()
                return picture

    def publish(
        self,
        photograph: Photograph,
        version: int,
        labels: LabelMap,
        maps: dict[int, dict[Step, FloatMap]],
        confidence: float,
    ) -> None:
        """Keep an answer: labels (H, W) in the classes' values, and each class's maps in [0, 1], by value.

        An answer to a question that is no longer asked is dropped.
        """
        pictures: dict[str, Any] = {"labels": labels}
        for value, steps in maps.items():
            for step, values in steps.items():
                pictures[f"{value}.{step}"] = (values * 255).round().astype(np.uint8)
        with self.lock:
            if (
                self.is_closed
                or self.version != version
                or self.photographs.get(photograph.id) is not photograph
            ):
                return
            for kind, pixels in pictures.items():
                save_picture(Image.fromarray(pixels), self._result_path(photograph, version, kind))
            earlier, steps = photograph.result, next(iter(maps.values()))
            photograph.result = Result(version, confidence, tuple(steps), tuple(maps))
            if earlier is not None and earlier.version != version:
                for path in self.folder.glob(f"{photograph.id}.{earlier.version}.*"):
                    path.unlink()

    def fail(self, photograph: Photograph, version: int, reason: str) -> None:
        """Note why a photograph has no answer to the question of `version`, if that is still asked."""
        with self.lock:
            if self.version == version:
                photograph.problem = reason

    def colour(self, value: int) -> tuple[int, int, int]:
        """Give the colour of a class; all that is no class is black."""
        return next((one.rgb for one in self.classes if one.value == value), (0, 0, 0))

    def close(self) -> None:
        """Forget everything."""
        with self.lock:
            self.is_closed = True
            self.photographs.clear()
            self.read.clear()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _supports_changed(self) -> None:
        self.version += 1
        for one in self.photographs.values():
            if not one.is_drawn:
                one.problem = None

    def _check_space(self, num_bytes: int) -> None:
        if self.is_closed:
            raise KshotError("This session was closed.")
        if len(self.photographs) >= self.limits.photographs:
            raise TooMuchError(
                f"This session has {len(self.photographs)} photographs, and takes no more. Remove "
                "some, or begin a new session."
            )
        used = sum(one.num_bytes for one in self.photographs.values())
        if used + num_bytes > self.limits.session_bytes:
            raise TooMuchError(
                f"This session has {used / 2**20:.0f} MB of photographs, and takes at most "
                f"{self.limits.session_bytes / 2**20:.0f} MB. Remove some, or begin a new session."
            )

    def _check_supports(self, photograph: Photograph) -> None:
        drawn = [one for one in self.photographs.values() if one.is_drawn and one is not photograph]
        if len(drawn) >= self.limits.supports:
            raise TooMuchError(
                f"There are {len(drawn)} labelled photographs, and more are not taken. "
                "One to five are the rule; remove one first."
            )

    def _photo_path(self, photograph: Photograph) -> Path:
        return self.folder / f"{photograph.id}.photo"

    def _labels_path(self, photograph: Photograph) -> Path:
        return self.folder / f"{photograph.id}.labels.png"

    def _result_path(self, photograph: Photograph, version: int, kind: str) -> Path:
        return self.folder / f"{photograph.id}.{version}.{kind}.png"
