"""The JSON responses of the REST API."""

from typing import Literal

from pydantic import BaseModel, Field

from kshot.web.images import MapName, ObjectClass, Role, SessionImage
from kshot.web.jobs import Worker
from kshot.web.session import Session

Status = Literal["unlabelled", "labelled", "waiting", "queued", "running", "done", "failed"]


class ImageState(BaseModel):
    """An image and its status."""

    id: str
    name: str
    role: Role = Field(description="Role given at upload.")
    width: int
    height: int
    status: Status = Field(
        description="Supports: unlabelled, labelled. Queries: waiting (for the first support), queued, "
        "running, done. Both: failed; see problem."
    )
    is_labelled: bool = Field(description="Whether a user labelled the image, which makes it a support.")
    is_negative: bool = Field(description="Whether the labels are empty: the image shows no class.")
    is_stale: bool = Field(description="Whether the supports have changed since the result was made.")
    confidence: float | None = Field(
        description="Mean probability of the foreground pixels, 0 to 1; 0 if there are none."
    )
    problem: str | None = Field(description="Why the image could not be used or segmented.")
    hint: str | None = Field(description="Why the labels may not help (labelled images only).")
    maps: tuple[MapName, ...] = Field(description="Available probability maps of each class.")
    class_values: tuple[int, ...] = Field(description="Values of the classes that have probability maps.")
    revision: str = Field(description="Changes when the labels or the result change.")


class SessionState(BaseModel):
    """A session and all its images."""

    id: str
    classes: tuple[ObjectClass, ...]
    images: list[ImageState]
    supports_negatives: bool = Field(description="Whether the model can use negative images.")
    queue_length: int = Field(description="Number of queued images of all sessions.")


def session_state(session: Session, worker: Worker) -> SessionState:
    """Return the state of a session."""
    with session.lock:
        images = [image_state(session, one, worker) for one in session.images.values()]
        return SessionState(
            id=session.id,
            classes=session.classes,
            images=images,
            supports_negatives=worker.segmenter.method.supports_negatives,
            queue_length=worker.queue_length(),
        )


def image_state(session: Session, image: SessionImage, worker: Worker) -> ImageState:
    """Return the state of an image."""
    result = None if image.is_labelled else image.result
    return ImageState(
        id=image.id,
        name=image.name,
        role=image.role,
        width=image.size[1],
        height=image.size[0],
        status=_status(session, image, worker),
        is_labelled=image.is_labelled,
        is_negative=image.is_negative,
        is_stale=result is not None and result.version != session.version,
        confidence=None if result is None else round(result.confidence, 4),
        problem=image.problem,
        hint=image.hint,
        maps=() if result is None else result.maps,
        class_values=() if result is None else result.class_values,
        revision=f"{image.label_version}.{0 if result is None else result.version}",
    )


def _status(session: Session, image: SessionImage, worker: Worker) -> Status:
    if image.problem is not None:
        return "failed"
    if image.is_labelled:
        return "labelled"
    if image.role == "support":
        return "unlabelled"
    if not session.needs_prediction(image):
        return "done"
    if worker.is_segmenting(image):
        return "running"
    return "queued" if session.has_supports() else "waiting"
