"""What the server tells of a session: the REST API's answers."""

from typing import Literal

from pydantic import BaseModel, Field

from kshot.web.images import ObjectClass, Photograph, Role, Step
from kshot.web.jobs import Worker
from kshot.web.session import Session

Status = Literal["unlabelled", "labelled", "waiting", "queued", "working", "done", "failed"]


class PhotographState(BaseModel):
    """A photograph, and how far it is."""

    id: str
    name: str
    role: Role = Field(description="What it came as.")
    width: int
    height: int
    status: Status = Field(
        description="Of supports: unlabelled, labelled. Of queries: waiting (for a first support), queued, "
        "working, done. Of both: failed, see problem."
    )
    is_labelled: bool = Field(description="Whether somebody drew its labels, which makes it a support.")
    is_negative: bool = Field(description="Whether its labels say that it shows no class at all.")
    is_stale: bool = Field(description="Whether its result was made with other supports than there are now.")
    confidence: float | None = Field(
        description="The mean probability of the pixels that were found, 0 to 1; 0 if nothing was."
    )
    problem: str | None
    hint: str | None = Field(description="Of a labelled one: why little is to be expected of it.")
    steps: tuple[Step, ...] = Field(description="The maps of probabilities that it has …")
    values: tuple[int, ...] = Field(description="… of the classes with these values.")
    stamp: str = Field(description="Changes when its labels or its result do.")


class SessionState(BaseModel):
    """A session, and how far it is."""

    id: str
    classes: tuple[ObjectClass, ...]
    photographs: list[PhotographState]
    takes_negatives: bool = Field(description="Whether the model learns from photographs of no class at all.")
    num_waiting: int = Field(description="Photographs of all sessions that wait for the model.")


def session_state(session: Session, worker: Worker) -> SessionState:
    """Describe a session."""
    with session.lock:
        photographs = [photograph_state(session, one, worker) for one in session.photographs.values()]
        return SessionState(
            id=session.id,
            classes=session.classes,
            photographs=photographs,
            takes_negatives=worker.segmenter.method.supports_negatives,
            num_waiting=worker.num_waiting(),
        )


def photograph_state(session: Session, photograph: Photograph, worker: Worker) -> PhotographState:
    """Describe a photograph."""
    result = None if photograph.is_drawn else photograph.result
    return PhotographState(
        id=photograph.id,
        name=photograph.name,
        role=photograph.role,
        width=photograph.size[1],
        height=photograph.size[0],
        status=_status(session, photograph, worker),
        is_labelled=photograph.is_drawn,
        is_negative=photograph.is_negative,
        is_stale=result is not None and result.version != session.version,
        confidence=None if result is None else round(result.confidence, 4),
        problem=photograph.problem,
        hint=photograph.hint,
        steps=() if result is None else result.steps,
        values=() if result is None else result.values,
        stamp=f"{photograph.drawings}.{0 if result is None else result.version}",
    )


def _status(session: Session, photograph: Photograph, worker: Worker) -> Status:
    if photograph.problem is not None:
        return "failed"
    if photograph.is_drawn:
        return "labelled"
    if photograph.role == "support":
        return "unlabelled"
    if not session.needs_answer(photograph):
        return "done"
    if worker.is_at(photograph):
        return "working"
    return "queued" if session.has_supports() else "waiting"
