"""A FastAPI application that serves the page and the REST API for one model."""

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
from kshot.web.auth import AuthMiddleware
from kshot.web.concurrency import ConcurrencyLimitMiddleware
from kshot.web.jobs import Worker
from kshot.web.limits import RETRY_AFTER, BusyError, LimitExceededError, Limits
from kshot.web.routes import router
from kshot.web.session_store import Sessions

STATIC = Path(__file__).parent / "static"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")

EXPIRY_CHECK_SECONDS = 60.0


def make_app(segmenter: Segmenter, token: str | None = None, limits: Limits | None = None) -> FastAPI:
    """Build the application.

    token: required in every request; None accepts all requests to a loopback host name without one.
    """
    limits = limits or Limits()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        folder = Path(tempfile.mkdtemp(prefix="kshot-"))
        app.state.sessions, app.state.worker = Sessions(folder, limits), Worker(segmenter)
        app.state.worker.start()
        expiry = asyncio.create_task(_expire_sessions(app.state.sessions))
        yield
        expiry.cancel()
        await run_in_threadpool(app.state.worker.stop)
        shutil.rmtree(folder, ignore_errors=True)

    app = FastAPI(
        title="kshot",
        version=__version__,
        description="Few-shot segmentation: label one to five images, segment the rest.",
        docs_url=None,  # both pages load scripts from a CDN
        redoc_url=None,
        lifespan=lifespan,
        # An image and a mask. Text fields, which the API does not use, would stay in memory.
        form_limits={"max_files": 2, "max_fields": 10, "max_part_size": 1000},
    )
    # The middleware added last runs first, so its headers are also set on the refusals of the others.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=limits.upload_bytes)
    app.add_middleware(ConcurrencyLimitMiddleware)
    if token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK_NAMES, www_redirect=False)
    app.add_middleware(AuthMiddleware, token=token)
    app.add_exception_handler(KshotError, _error_response)
    app.add_exception_handler(RequestValidationError, _validation_response)
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_api_route("/", _page, include_in_schema=False, response_class=FileResponse)
    return app


async def _page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


async def _expire_sessions(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(EXPIRY_CHECK_SECONDS)
        await run_in_threadpool(sessions.expire)


async def _error_response(request: Request, error: Exception) -> JSONResponse:
    """Return an error of kshot as JSON, with the status for its kind."""
    detail = {"detail": str(error)}
    if isinstance(error, BusyError):
        return JSONResponse(detail, 503, {"Retry-After": RETRY_AFTER})
    if isinstance(error, WriteError):  # its message would disclose a path of the server
        return JSONResponse({"detail": "The server's disk is full or read-only."}, 507)
    return JSONResponse(detail, 413 if isinstance(error, LimitExceededError) else 422)


async def _validation_response(request: Request, error: Exception) -> JSONResponse:
    """Return what is wrong with a request, without the input: some of it cannot be written as JSON."""
    assert isinstance(error, RequestValidationError)
    return JSONResponse(
        {"detail": [{key: one[key] for key in ("type", "loc", "msg")} for one in error.errors()]}, 422
    )
