"""Authentication: requests of other sites are refused, and a token is required on a network.

The middleware also adds headers that stop the browser from loading or running anything but the page's files.
"""

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "kshot_token"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class AuthMiddleware:
    """ASGI middleware that refuses unauthorized requests and adds security headers."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD") and _is_cross_origin(headers):
            return JSONResponse({"detail": "Cross-origin request refused."}, 403)
        if self.token is None:
            return None
        if scope["path"] == "/" and self._is_token(
            *parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        ):
            redirect = RedirectResponse("/", 303)
            redirect.set_cookie(COOKIE, self.token, httponly=True, samesite="lax")
            return redirect
        if self._is_token(_cookie(headers)) or self._is_token(_bearer(headers)):
            return None
        return JSONResponse(
            {
                "detail": "The token is missing or wrong. Open the address that `kshot serve` printed, "
                "or send 'Authorization: Bearer TOKEN'."
            },
            401,
        )

    def _is_token(self, *given: str) -> bool:
        assert self.token is not None
        return len(given) == 1 and secrets.compare_digest(given[0].encode(), self.token.encode())


def _is_cross_origin(headers: Headers) -> bool:
    """Return whether a browser sent this for another site's page; other programs send no Origin."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _bearer(headers: Headers) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")
