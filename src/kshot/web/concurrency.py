"""Limits on simultaneous connections and requests.

uvicorn's own `limit_concurrency` refuses new clients, so slow ones can block the server. Here each connection
above the limit closes the oldest one that waits for its client.
"""

import asyncio

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from kshot.web.limits import RETRY_AFTER

MAX_CONNECTIONS = 200
"""Above this number, each new connection closes the oldest one that waits for its client."""

MAX_REQUESTS = 250
"""Maximum number of requests in progress; more than MAX_CONNECTIONS, so that slow clients cannot reach it."""


class ConnectionLimitProtocol(H11Protocol):
    """HTTP protocol that closes the oldest connection waiting for its client when there are too many.

    Otherwise clients that send or read one byte at a time would block all others.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Open the connection, and close another one if there are too many."""
        super().connection_made(transport)
        self.opened_at = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            waiting = [
                one
                for one in self.connections
                if isinstance(one, ConnectionLimitProtocol) and one is not self and one.waits_for_client()
            ]
            if waiting:
                min(waiting, key=lambda one: one.opened_at).transport.abort()

    def shutdown(self) -> None:
        """Close after the response is sent, or at once if the client has not finished its request."""
        super().shutdown()
        if self.waits_for_client():
            self.transport.abort()

    def waits_for_client(self) -> bool:
        """Return whether the client still has to send its request or to read its response."""
        is_receiving = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        return not self.transport.is_closing() and (is_receiving or self.flow.write_paused)


class ConcurrencyLimitMiddleware:
    """ASGI middleware that answers 503 while too many requests are in progress."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.num_requests = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or ask the client to retry later."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        app = self.app
        if self.num_requests >= MAX_REQUESTS:
            detail = f"{self.num_requests} requests are in progress. Try again later."
            app = JSONResponse({"detail": detail}, 503, {"Retry-After": RETRY_AFTER})
        self.num_requests += 1
        try:
            await app(scope, receive, send)
        finally:
            self.num_requests -= 1
