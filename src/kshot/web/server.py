"""The page and the REST API: a FastAPI application around one model."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from kshot import __version__
from kshot.errors import KshotError, WriteError
from kshot.segmenter import Segmenter
from kshot.web.auth import Guard
from kshot.web.concurrency import Crowd
from kshot.web.jobs import Worker
from kshot.web.limits import RETRY_AFTER, BusyError, Limits, TooMuchError
from kshot.web.routes import router
from kshot.web.sessions import Sessions

STATIC = Path(__file__).parent / "static"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")

SECONDS_BETWEEN_SWEEPS = 60.0


def make_app(segmenter: Segmenter, token: str | None = None, limits: Limits | None = None) -> FastAPI:
    """Build the application.

    token: what others must show; None trusts all who reach the server under a name of the machine's own.
    """
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        folder = Path(tempfile.mkdtemp(prefix="kshot-"))
        app.state.sessions, app.state.worker = Sessions(folder, limits), Worker(segmenter)
        app.state.worker.start()
        sweeps = asyncio.create_task(_sweep(app.state.sessions))
        yield
        sweeps.cancel()
        await run_in_threadpool(app.state.worker.stop)
        shutil.rmtree(folder, ignore_errors=True)

    app = FastAPI(
        title="kshot",
        version=__version__,
        description="Few-shot segmentation: label one to five photographs, segment the rest.",
        docs_url=None,  # these load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        # A photograph and a mask; text, which the API does not ask for, would all stay in memory.
        form_limits={"max_files": 2, "max_fields": 10, "max_part_size": 1000},
    )
    # The last one is the first that a request meets: it adds its headers to the others' refusals too.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=limits.upload_bytes)
    app.add_middleware(Crowd)
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES, www_redirect=False)
    app.add_middleware(Guard, token=token)
    app.add_exception_handler(KshotError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_api_route("/", _page, include_in_schema=False, response_class=FileResponse)
    return app


async def _page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(SECONDS_BETWEEN_SWEEPS)
        await run_in_threadpool(sessions.expire)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer a user's mistake with what is wrong, and what to do."""
    detail = {"detail": str(error)}
    if isinstance(error, BusyError):
        return JSONResponse(detail, 503, {"Retry-After": RETRY_AFTER})
    if isinstance(error, WriteError):  # where the server keeps its files is nobody's business
        return JSONResponse({"detail": "The server's disk is full, or closed to it."}, 507)
    return JSONResponse(detail, 413 if isinstance(error, TooMuchError) else 422)


async def _refuse_invalid(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a request, without repeating it: not all that is sent can be written as JSON."""
    assert isinstance(error, RequestValidationError)
    return JSONResponse(
        {"detail": [{key: one[key] for key in ("type", "loc", "msg")} for one in error.errors()]}, 422
    )
