"""The endpoints of the REST API."""

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
from kshot.io.files import encode_image
from kshot.web.archive import render_labels, write_archive
from kshot.web.images import ObjectClass, Role, SessionImage
from kshot.web.jobs import Worker
from kshot.web.limits import BusyError
from kshot.web.session import Session
from kshot.web.session_store import Sessions
from kshot.web.state import ImageState, SessionState, image_state, session_state
from kshot.web.uploads import decode_labels
from kshot.web.views import View, render_view

Responses = dict[int | str, dict[str, Any]]
PNG: Responses = {200: {"content": {"image/png": {}}}}
JPEG: Responses = {200: {"content": {"image/jpeg": {}}}}
ZIP: Responses = {200: {"content": {"application/zip": {}}}}

POLL_SECONDS = 0.02
"""Interval at which a request checks whether its image has been segmented."""

MAX_BYTES_IN_MEMORY = 2**20
"""Size of an uploaded mask above which it is buffered in a file, as form parts are."""

MAX_CLASSES_BYTES = 2**18
"""Maximum size of a list of classes: enough for MAX_CLASSES; parsed JSON takes many times its size."""

router = APIRouter(prefix="/api/sessions", tags=["sessions"])


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _worker(request: Request) -> Worker:
    worker: Worker = request.app.state.worker
    return worker


def _session(session_id: str, sessions: Annotated[Sessions, Depends(_sessions)]) -> Session:
    session = sessions.get(session_id)
    if session is None:
        raise HTTPException(404, "No such session; it may have expired. Start a new one.")
    return session


SessionsDep = Annotated[Sessions, Depends(_sessions)]
WorkerDep = Annotated[Worker, Depends(_worker)]
SessionDep = Annotated[Session, Depends(_session)]


def _image(image_id: str, session: SessionDep) -> SessionImage:
    found = session.images.get(image_id)
    if found is None:
        raise HTTPException(404, "This session has no such image.")
    return found


ImageDep = Annotated[SessionImage, Depends(_image)]
ImageUpload = Annotated[UploadFile, File(description="JPEG, PNG, WebP, BMP or TIFF.")]


@router.post("", status_code=201)
def create_session(sessions: SessionsDep, worker: WorkerDep) -> SessionState:
    """Create a session with one class, "object"."""
    return session_state(sessions.create(), worker)


@router.get("/{session_id}")
def get_session(session: SessionDep, worker: WorkerDep) -> SessionState:
    """Return the state of a session and of its images."""
    return session_state(session, worker)


@router.delete("/{session_id}", status_code=204)
def delete_session(session: SessionDep, sessions: SessionsDep) -> None:
    """Delete a session with all its images, labels and results."""
    sessions.close(session)


@router.put("/{session_id}/classes", max_body_size=MAX_CLASSES_BYTES)
def put_classes(
    classes: Annotated[list[ObjectClass], FailFast()], session: SessionDep, worker: WorkerDep
) -> SessionState:
    """Replace the classes; labels of removed classes become background."""
    session.set_classes(classes)
    worker.enqueue(session)
    return session_state(session, worker)


@router.post("/{session_id}/supports", status_code=201)
def add_support(
    session: SessionDep,
    worker: WorkerDep,
    image: ImageUpload,
    mask: Annotated[
        UploadFile | None, File(description="Mask of the same size as the image; 0 is background.")
    ] = None,
) -> ImageState:
    """Add a support image, with its mask or without; with one, all queries are segmented again."""
    added = _add(session, image, "support")
    if mask is not None:
        try:
            _set_labels(session, worker, added, mask.file)
        except KshotError:
            session.remove(added)
            raise
        worker.enqueue(session)
    return image_state(session, added, worker)


@router.post("/{session_id}/queries", status_code=201)
def add_query(session: SessionDep, worker: WorkerDep, image: ImageUpload) -> ImageState:
    """Add a query image; it is queued once the session has a labelled image."""
    _check_queue(session, worker)
    added = _add(session, image, "query")
    worker.enqueue(session)
    return image_state(session, added, worker)


@router.post("/{session_id}/segment", response_class=Response, responses=PNG)
async def segment(session: SessionDep, worker: WorkerDep, image: ImageUpload) -> Response:
    """Segment an image, return its mask or label map, and delete the image.

    The header X-Confidence is the mean probability of the foreground pixels, 0 to 1.
    """
    if not session.has_supports():
        raise HTTPException(409, "This session has no labelled image. POST one to .../supports first.")
    state = await run_in_threadpool(add_query, session, worker, image)
    query = session.images[state.id]
    try:
        while session.needs_prediction(query) and session.has_supports():
            await asyncio.sleep(POLL_SECONDS)
        if query.result is None:
            raise KshotError(query.problem or "The supports were removed before the image was segmented.")
        labels = await run_in_threadpool(session.labels, query)
        confidence = f"{query.result.confidence:.4f}"
        return _png(render_labels(session, labels), {"X-Confidence": confidence})
    finally:
        await run_in_threadpool(session.remove, query)


@router.delete("/{session_id}/images/{image_id}", status_code=204)
def delete_image(session: SessionDep, image: ImageDep, worker: WorkerDep) -> None:
    """Delete an image; if it was labelled, all queries are segmented again."""
    session.remove(image)
    worker.enqueue(session)


@router.put("/{session_id}/images/{image_id}/labels.png")
async def put_labels(request: Request, session: SessionDep, image: ImageDep, worker: WorkerDep) -> ImageState:
    """Set an image's labels to the PNG in the body, which makes it a support image.

    With one class, any mask is accepted; with several, a label map of the class values. An empty mask makes
    the image a negative one, if the model supports negatives. All queries are segmented again.
    """
    with SpooledTemporaryFile(MAX_BYTES_IN_MEMORY) as mask:
        try:
            async for chunk in request.stream():
                mask.write(chunk)
        except ClientDisconnect as error:
            raise HTTPException(400, "The mask is incomplete: the connection was closed.") from error
        mask.seek(0)
        await run_in_threadpool(_set_labels, session, worker, image, mask)
    await run_in_threadpool(worker.enqueue, session)
    return image_state(session, image, worker)


@router.delete("/{session_id}/images/{image_id}/labels.png")
def delete_labels(session: SessionDep, image: ImageDep, worker: WorkerDep) -> ImageState:
    """Delete the user's labels of an image; all queries are segmented again."""
    session.set_labels(image, None)
    worker.enqueue(session)
    return image_state(session, image, worker)


@router.get("/{session_id}/images/{image_id}/labels.png", response_class=Response, responses=PNG)
def get_labels(session: SessionDep, image: ImageDep) -> Response:
    """Return the user's labels, or else the predicted ones, as a grey image of class values."""
    return _png(Image.fromarray(session.labels(image)))


@router.get("/{session_id}/images/{image_id}/mask.png", response_class=Response, responses=PNG)
def get_mask(session: SessionDep, image: ImageDep) -> Response:
    """Return the labels as `kshot segment` writes them: a 0/255 mask, or a palette image of the classes."""
    return _png(render_labels(session, session.labels(image)))


@router.get("/{session_id}/images/{image_id}/{view}.jpg", response_class=Response, responses=JPEG)
def get_view(
    session: SessionDep,
    image: ImageDep,
    view: View,
    value: Annotated[int, Query(description="Value of the class whose probability map is shown.")] = 1,
    side: Annotated[int | None, Query(ge=16, le=4096, description="Shrink to fit this square.")] = None,
) -> Response:
    """Return a JPEG view of an image."""
    headers = {"Cache-Control": "private, max-age=3600"}  # the page adds the image's revision to the URL
    return Response(render_view(session, image, view, value, side), media_type="image/jpeg", headers=headers)


@router.get("/{session_id}/results.zip", response_class=FileResponse, responses=ZIP)
def get_results(session: SessionDep) -> FileResponse:
    """Return a zip of all labels, results that are not stale, and annotation files."""
    descriptor, name = tempfile.mkstemp(suffix=".zip", prefix="kshot-")
    os.close(descriptor)
    path = Path(name)
    try:
        write_archive(session, path)
    except BaseException:
        path.unlink()
        raise
    cleanup = BackgroundTask(path.unlink)
    return FileResponse(path, media_type="application/zip", filename="kshot.zip", background=cleanup)


def _add(session: Session, upload: UploadFile, role: Role) -> SessionImage:
    return session.add(upload.filename or "", upload.file.read(), role)


def _set_labels(session: Session, worker: Worker, image: SessionImage, mask: IO[bytes]) -> None:
    values = [one.value for one in session.classes]
    may_be_empty = worker.segmenter.method.supports_negatives
    session.set_labels(image, decode_labels(mask.read(), image.size, values, may_be_empty=may_be_empty))


def _check_queue(session: Session, worker: Worker) -> None:
    length = worker.queue_length()
    if length >= session.limits.queue:
        raise BusyError(f"{length} images are queued, which is the maximum. Try again later.")


def _png(image: Image.Image, headers: dict[str, str] | None = None) -> Response:
    return Response(encode_image(image, "PNG"), media_type="image/png", headers=headers)
