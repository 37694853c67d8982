"""How many may ask at once: who keeps the server waiting makes way, and others are told to come back."""

import asyncio

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from kshot.web.limits import RETRY_AFTER

MAX_CONNECTIONS = 200
"""Beyond these, the oldest that waits for its client is closed for each that comes."""

MAX_REQUESTS = 250
"""That are being answered, or still come in; more than could all be waiting for their clients."""


class Connection(H11Protocol):
    """A connection that makes way if it is the oldest that waits for its client, and there are too many.

    Clients that send, or read, a byte now and then would else keep all others out.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and close another connection if there are too many."""
        super().connection_made(transport)
        self.since = self.loop.time()
        if len(self.connections) > MAX_CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
            waiting = [one for one in others if one.waits_for_client()]
            if waiting:
                min(waiting, key=lambda one: one.since).transport.abort()

    def shutdown(self) -> None:
        """End once the answer is sent; at once, if the client has to end its request first."""
        super().shutdown()
        if self.waits_for_client():
            self.transport.abort()

    def waits_for_client(self) -> bool:
        """Say whether the client has a request to finish, or an answer to read."""
        is_asking = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        return not self.transport.is_closing() and (is_asking or self.flow.write_paused)


class Crowd:
    """Middleware that refuses a request while too many others are being answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.num_requests = app, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say when to come back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        app = self.app
        if self.num_requests >= MAX_REQUESTS:
            detail = f"{self.num_requests} requests are being answered. Send this one again in a while."
            app = JSONResponse({"detail": detail}, 503, {"Retry-After": RETRY_AFTER})
        self.num_requests += 1
        try:
            await app(scope, receive, send)
        finally:
            self.num_requests -= 1
