"""One worker thread that segments queued images one after another, so that the model has all cores."""

import threading
import traceback

import numpy as np

from kshot.errors import KshotError, NotFittedError, reason_of
from kshot.predict.support_check import low_iou_warning, support_iou
from kshot.results import OBJECT, SegmentationResult
from kshot.segmenter import ClassSupport, Segmenter
from kshot.types import FloatMap, Support
from kshot.web.images import MapName, SessionImage
from kshot.web.session import Session

Key = tuple[str, str]
"""The ids of a session and an image."""


class Worker:
    """A worker thread with a queue. An image is queued at most once, however often its supports change."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self._queue: dict[Key, tuple[Session, SessionImage]] = {}
        self._current: SessionImage | None = None
        self._condition = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="kshot-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the current image and stop; queued images stay without a prediction."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        self._thread.join()

    def enqueue(self, session: Session) -> None:
        """Queue all images of a session that need a prediction."""
        outdated = session.outdated()
        with self._condition:
            for image in outdated:
                self._queue.setdefault((session.id, image.id), (session, image))
            self._condition.notify()

    def queue_length(self) -> int:
        """Return the number of queued images of all sessions."""
        with self._condition:
            return len(self._queue)

    def is_segmenting(self, image: SessionImage) -> bool:
        """Return whether this image is being segmented now."""
        return self._current is image

    def _run(self) -> None:
        while True:
            with self._condition:
                self._current = None
                self._condition.wait_for(lambda: self._queue or self._is_stopping)
                if self._is_stopping:
                    return
                session, image = self._queue.pop(next(iter(self._queue)))
                self._current = image
            version = session.version
            try:
                segment(self.segmenter, session, image)
            except KshotError as error:
                session.store_problem(image, version, str(error))
            except Exception as error:  # one image must not end the thread that serves all sessions
                traceback.print_exc()
                session.store_problem(image, version, f"It could not be segmented: {reason_of(error)}.")


def segment(model: Segmenter, session: Session, image: SessionImage) -> None:
    """Segment an image with its session's supports and store the result, if it still needs one.

    Raises KshotError if none of the supports can be used.
    """
    with session.lock:
        version = session.version
        if session.is_closed or not session.has_supports() or not session.needs_prediction(image):
            return
        pixels = session.pixels(image)
    fitted = model.clone()
    fitted.support_set = {str(value): own for value, own in _support_set(model, session).items()}
    result = fitted.predict(pixels)
    values = [int(name) for name in result.class_names]
    labels = np.array([0, *values], np.uint8)[result.labels]
    maps = {value: _maps(result.of_class(str(value))) for value in values}
    session.store_result(image, version, labels, maps, result.confidence)


def _support_set(model: Segmenter, session: Session) -> dict[int, ClassSupport]:
    """Return the encoded supports of each class that has some, by class value; encode only what is new."""
    with session.lock:
        values = [one.value for one in session.classes]
        labelled = [one for one in session.images.values() if one.is_labelled]
    encoded = [_encode_support(model, session, one) for one in labelled]
    supports = {value: sum((one.get(value, ()) for one in encoded), ()) for value in values}
    negatives = sum((one.get(0, ()) for one in encoded), ())
    fitted = {
        value: _learn(model, session, value, shots, negatives) for value, shots in supports.items() if shots
    }
    if not fitted:
        raise NotFittedError("None of the labelled images can be used; each shows its own error.")
    return fitted


def _learn(
    model: Segmenter,
    session: Session,
    value: int,
    shots: tuple[Support, ...],
    negatives: tuple[Support, ...],
) -> ClassSupport:
    """Let the model adapt to a class, once for each change of its labelled images."""
    with session.lock:
        known = session.fitted.get(value)
    if known is None or not _are_same((*known.shots, *known.negatives), (*shots, *negatives)):
        known = model.learn(shots, negatives)
        with session.lock:
            session.fitted[value] = known
    return known


def _are_same(first: tuple[Support, ...], second: tuple[Support, ...]) -> bool:
    return len(first) == len(second) and all(one is other for one, other in zip(first, second, strict=True))


def _encode_support(
    model: Segmenter, session: Session, image: SessionImage
) -> dict[int, tuple[Support, ...]]:
    """Encode a labelled image once for each version of its labels; store the problem if it is unusable."""
    with session.lock:
        label_version, encoded = session.encoded.get(image.id, (0, {}))
        if label_version == image.label_version or not image.is_labelled:
            return encoded
        label_version, labels = image.label_version, session.labels(image)
        pixels = session.pixels(image)
    supports: dict[int, tuple[Support, ...]] = {}
    if not labels.any():
        supports[0] = model.encode_negative(pixels)
    for value in np.unique(labels[labels > 0]).tolist():
        try:
            fitted = model.clone().fit(pixels, labels == value)
            supports[value] = fitted.support_set[OBJECT].shots
            image.hint = image.hint or low_iou_warning(support_iou(fitted, pixels, labels == value), "this")
        except KshotError as error:
            image.problem = str(error)
    with session.lock:
        if image.id in session.images:
            session.encoded[image.id] = label_version, supports
    return supports


def _maps(one: SegmentationResult) -> dict[MapName, FloatMap]:
    maps: dict[MapName, FloatMap | None] = {
        "probability": one.probability,
        "first_pass": one.first_pass,
        "second_pass": one.second_pass,
    }
    return {name: values for name, values in maps.items() if values is not None}
