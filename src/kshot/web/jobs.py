"""One worker that segments queued photographs, one by one: the model has the machine to itself."""

import threading
import traceback

import numpy as np

from kshot.errors import KshotError, NotFittedError, reason_of
from kshot.predict.support_check import hint, own_iou
from kshot.results import OBJECT, FloatMap, SegmentationResult
from kshot.segmenter import ClassSupport, Segmenter
from kshot.types import Support
from kshot.web.images import Photograph, Step
from kshot.web.session import Session

Key = tuple[str, str]
"""A session's and a photograph's id."""


class Worker:
    """A thread with a queue. A photograph waits in it once, however often its supports change."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self._waiting: dict[Key, tuple[Session, Photograph]] = {}
        self._current: Photograph | None = None
        self._condition = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="kshot-worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the photograph at hand, and leave the others."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        self._thread.join()

    def refresh(self, session: Session) -> None:
        """Queue all photographs of a session that need an answer."""
        outdated = session.outdated()
        with self._condition:
            for photograph in outdated:
                self._waiting.setdefault((session.id, photograph.id), (session, photograph))
            self._condition.notify()

    def num_waiting(self) -> int:
        """Count the photographs of all sessions that wait."""
        with self._condition:
            return len(self._waiting)

    def is_at(self, photograph: Photograph) -> bool:
        """Say whether this is the photograph at hand."""
        return self._current is photograph

    def _work(self) -> None:
        while True:
            with self._condition:
                self._current = None
                self._condition.wait_for(lambda: self._waiting or self._is_stopping)
                if self._is_stopping:
                    return
                session, photograph = self._waiting.pop(next(iter(self._waiting)))
                self._current = photograph
            version = session.version
            try:
                segment(self.segmenter, session, photograph)
            except KshotError as error:
                session.fail(photograph, version, str(error))
            except Exception as error:  # one photograph must not end the thread that all others need
                traceback.print_exc()
                session.fail(photograph, version, f"It could not be segmented: {reason_of(error)}.")


def segment(model: Segmenter, session: Session, photograph: Photograph) -> None:
    """Segment one photograph by its session's supports, if it still needs that, and keep the answer.

    Raises KshotError if no support can be used.
    """
    with session.lock:
        version = session.version
        if session.is_closed or not session.has_supports() or not session.needs_answer(photograph):
            return
        picture = session.picture(photograph)
    fitted = model.clone()
    fitted.support_set = {str(value): own for value, own in _support_set(model, session).items()}
    result = fitted.predict(picture)
    values = [int(name) for name in result.class_names]
    labels = np.array([0, *values], np.uint8)[result.labels]
    maps = {value: _maps(result.of_class(str(value))) for value in values}
    session.publish(photograph, version, labels, maps, result.confidence)


def _support_set(model: Segmenter, session: Session) -> dict[int, ClassSupport]:
    """Return what each class that has a support is learned from, by its value; encodes only what is new."""
    with session.lock:
        values = [one.value for one in session.classes]
        drawn = [one for one in session.photographs.values() if one.is_drawn]
    read = [_read(model, session, one) for one in drawn]
    supports = {value: sum((one.get(value, ()) for one in read), ()) for value in values}
    negatives = sum((one.get(0, ()) for one in read), ())
    fitted = {value: ClassSupport(found, negatives) for value, found in supports.items() if found}
    if not fitted:
        raise NotFittedError("No labelled photograph can be used; they say why.")
    return fitted


def _read(model: Segmenter, session: Session, photograph: Photograph) -> dict[int, tuple[Support, ...]]:
    """Read a support or a negative, once for each time that it is drawn; one of no use notes its problem."""
    with session.lock:
        drawings, known = session.read.get(photograph.id, (0, {}))
        if drawings == photograph.drawings or not photograph.is_drawn:
            return known
        drawings, labels = photograph.drawings, session.labels(photograph)
        picture = session.picture(photograph)
    found: dict[int, tuple[Support, ...]] = {}
    if not labels.any():
        found[0] = model.encode_negative(picture)
    for value in np.unique(labels[labels > 0]).tolist():
        try:
            fitted = model.clone().fit(picture, labels == value)
            found[value] = fitted.support_set[OBJECT].shots
            photograph.hint = photograph.hint or hint(own_iou(fitted, picture, labels == value), "this")
        except KshotError as error:
            photograph.problem = str(error)
    with session.lock:
        if photograph.id in session.photographs:
            session.read[photograph.id] = drawings, found
    return found


def _maps(one: SegmentationResult) -> dict[Step, FloatMap]:
    steps: dict[Step, FloatMap | None] = {
        "probability": one.probability,
        "first_pass": one.first_pass,
        "second_pass": one.second_pass,
    }
    return {step: values for step, values in steps.items() if values is not None}
