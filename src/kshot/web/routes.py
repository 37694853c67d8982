"""The REST API's verbs, one function each."""

import asyncio
import os
import tempfile
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, File, HTTPException, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from PIL import Image
from pydantic import FailFast
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect

from kshot.errors import KshotError
from kshot.io.files import encoded
from kshot.web.archive import answer_picture, write_archive
from kshot.web.images import ObjectClass, Photograph, Role
from kshot.web.jobs import Worker
from kshot.web.limits import BusyError
from kshot.web.session import Session
from kshot.web.sessions import Sessions
from kshot.web.state import PhotographState, SessionState, photograph_state, session_state
from kshot.web.uploads import read_labels
from kshot.web.views import View, view

Responses = dict[int | str, dict[str, Any]]
PNG: Responses = {200: {"content": {"image/png": {}}}}
JPEG: Responses = {200: {"content": {"image/jpeg": {}}}}
ZIP: Responses = {200: {"content": {"application/zip": {}}}}

SECONDS_BETWEEN_LOOKS = 0.02

IN_MEMORY = 2**20
"""Bytes of a mask that comes; beyond, it waits in a file, as the parts of forms do."""

CLASSES_BYTES = 2**18
"""Of a list of classes: all that there may be need less; read JSON takes many times its bytes."""

router = APIRouter(prefix="/api/sessions", tags=["sessions"])


def _sessions(request: Request) -> Sessions:
    found: Sessions = request.app.state.sessions
    return found


def _worker(request: Request) -> Worker:
    found: Worker = request.app.state.worker
    return found


def _session(session_id: str, sessions: Annotated[Sessions, Depends(_sessions)]) -> Session:
    session = sessions.find(session_id)
    if session is None:
        raise HTTPException(404, "There is no such session; it may have expired. Begin a new one.")
    return session


TheSessions = Annotated[Sessions, Depends(_sessions)]
TheWorker = Annotated[Worker, Depends(_worker)]
TheSession = Annotated[Session, Depends(_session)]


def _photograph(photograph_id: str, session: TheSession) -> Photograph:
    photograph = session.photographs.get(photograph_id)
    if photograph is None:
        raise HTTPException(404, "There is no such photograph in this session.")
    return photograph


ThePhotograph = Annotated[Photograph, Depends(_photograph)]
Photo = Annotated[UploadFile, File(description="JPEG, PNG, WebP, BMP or TIFF.")]


@router.post("", status_code=201)
def begin(sessions: TheSessions, worker: TheWorker) -> SessionState:
    """Begin a session; it has one class, "object"."""
    return session_state(sessions.open(), worker)


@router.get("/{session_id}")
def look(session: TheSession, worker: TheWorker) -> SessionState:
    """Tell all about a session: its photographs, and how far they are."""
    return session_state(session, worker)


@router.delete("/{session_id}", status_code=204)
def end(session: TheSession, sessions: TheSessions) -> None:
    """End a session, and forget its photographs."""
    sessions.close(session)


@router.put("/{session_id}/classes", max_body_size=CLASSES_BYTES)
def set_classes(
    classes: Annotated[list[ObjectClass], FailFast()], session: TheSession, worker: TheWorker
) -> SessionState:
    """Replace the classes; what was drawn of those that are gone becomes background."""
    session.set_classes(classes)
    worker.refresh(session)
    return session_state(session, worker)


@router.post("/{session_id}/supports", status_code=201)
def add_support(
    session: TheSession,
    worker: TheWorker,
    photo: Photo,
    mask: Annotated[
        UploadFile | None, File(description="Of the photograph's size, 0 on the background.")
    ] = None,
) -> PhotographState:
    """Add a labelled photograph, or one whose mask follows; all queries are then segmented again."""
    photograph = _add(session, photo, "support")
    if mask is not None:
        try:
            _draw(session, worker, photograph, mask.file)
        except KshotError:
            session.remove(photograph)
            raise
        worker.refresh(session)
    return photograph_state(session, photograph, worker)


@router.post("/{session_id}/queries", status_code=201)
def add_query(session: TheSession, worker: TheWorker, photo: Photo) -> PhotographState:
    """Add a photograph to segment; it waits in the queue, if there is a labelled one."""
    _check_queue(session, worker)
    photograph = _add(session, photo, "query")
    worker.refresh(session)
    return photograph_state(session, photograph, worker)


@router.post("/{session_id}/segment", response_class=Response, responses=PNG)
async def segment(session: TheSession, worker: TheWorker, photo: Photo) -> Response:
    """Segment a photograph and give its mask or labels; the header X-Confidence says how sure it is.

    The photograph is forgotten afterwards.
    """
    if not session.has_supports():
        raise HTTPException(409, "This session has no labelled photograph. Post one to …/supports first.")
    state = await run_in_threadpool(add_query, session, worker, photo)
    photograph = session.photographs[state.id]
    try:
        while session.needs_answer(photograph) and session.has_supports():
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        if photograph.result is None:
            raise KshotError(photograph.problem or "The supports went before the photograph was segmented.")
        labels = await run_in_threadpool(session.labels, photograph)
        sure = f"{photograph.result.confidence:.4f}"
        return _png(answer_picture(session, labels), {"X-Confidence": sure})
    finally:
        await run_in_threadpool(session.remove, photograph)


@router.delete("/{session_id}/photographs/{photograph_id}", status_code=204)
def remove(session: TheSession, photograph: ThePhotograph, worker: TheWorker) -> None:
    """Forget a photograph; if it was labelled, all queries are segmented again."""
    session.remove(photograph)
    worker.refresh(session)


@router.put("/{session_id}/photographs/{photograph_id}/labels.png")
async def draw(
    request: Request, session: TheSession, photograph: ThePhotograph, worker: TheWorker
) -> PhotographState:
    """Draw a photograph's labels, as a PNG in the body; it is then a support, whatever it came as.

    Of one class any mask will do; of several, a mask of their values. An empty mask makes it a negative,
    which shows no class at all, if the model learns from such. All queries are segmented again.
    """
    with SpooledTemporaryFile(IN_MEMORY) as mask:
        try:
            async for chunk in request.stream():
                mask.write(chunk)
        except ClientDisconnect as error:
            raise HTTPException(400, "The mask broke off.") from error
        mask.seek(0)
        await run_in_threadpool(_draw, session, worker, photograph, mask)
    await run_in_threadpool(worker.refresh, session)
    return photograph_state(session, photograph, worker)


@router.delete("/{session_id}/photographs/{photograph_id}/labels.png")
def erase(session: TheSession, photograph: ThePhotograph, worker: TheWorker) -> PhotographState:
    """Take a photograph's drawn labels away; all queries are then segmented again."""
    session.draw(photograph, None)
    worker.refresh(session)
    return photograph_state(session, photograph, worker)


@router.get("/{session_id}/photographs/{photograph_id}/labels.png", response_class=Response, responses=PNG)
def labels(session: TheSession, photograph: ThePhotograph) -> Response:
    """Give what was drawn, else what was found, as grey levels: the classes' values."""
    return _png(Image.fromarray(session.labels(photograph)))


@router.get("/{session_id}/photographs/{photograph_id}/mask.png", response_class=Response, responses=PNG)
def mask(session: TheSession, photograph: ThePhotograph) -> Response:
    """Give what was drawn or found as `kshot segment` does: 0 and 255, or of several classes a palette."""
    return _png(answer_picture(session, session.labels(photograph)))


@router.get("/{session_id}/photographs/{photograph_id}/{kind}.jpg", response_class=Response, responses=JPEG)
def look_at(
    session: TheSession,
    photograph: ThePhotograph,
    kind: View,
    value: Annotated[int, Query(description="Of the class whose probability to show.")] = 1,
    side: Annotated[int | None, Query(ge=16, le=4096, description="Shrink to fit this square.")] = None,
) -> Response:
    """Give a picture to look at."""
    kept = {"Cache-Control": "private, max-age=3600"}  # the page asks with the photograph's stamp
    return Response(view(session, photograph, kind, value, side), media_type="image/jpeg", headers=kept)


@router.get("/{session_id}/results.zip", response_class=FileResponse, responses=ZIP)
def download(session: TheSession) -> FileResponse:
    """Give all labels, results that are not stale, and annotations in one file."""
    descriptor, name = tempfile.mkstemp(suffix=".zip", prefix="kshot-")
    os.close(descriptor)
    path = Path(name)
    try:
        write_archive(session, path)
    except BaseException:
        path.unlink()
        raise
    tidy = BackgroundTask(path.unlink)
    return FileResponse(path, media_type="application/zip", filename="kshot.zip", background=tidy)


def _add(session: Session, photo: UploadFile, role: Role) -> Photograph:
    return session.add(photo.filename or "", photo.file.read(), role)


def _draw(session: Session, worker: Worker, photograph: Photograph, mask: IO[bytes]) -> None:
    values = [one.value for one in session.classes]
    takes_negatives = worker.segmenter.method.supports_negatives
    session.draw(photograph, read_labels(mask.read(), photograph.size, values, may_be_empty=takes_negatives))


def _check_queue(session: Session, worker: Worker) -> None:
    waiting = worker.num_waiting()
    if waiting >= session.limits.queue:
        raise BusyError(f"{waiting} photographs wait already. Send this one again in a while.")


def _png(picture: Image.Image, headers: dict[str, str] | None = None) -> Response:
    return Response(encoded(picture, "PNG"), media_type="image/png", headers=headers)
