"""Run the server until it is stopped."""

import ipaddress
import secrets
import socket
import webbrowser

import typer
import uvicorn

from kshot.errors import KshotError
from kshot.segmenter import Segmenter
from kshot.web.concurrency import Connection
from kshot.web.server import make_app

SECONDS_TO_FINISH = 5
"""That a request has when the server is stopped."""


def listen(segmenter: Segmenter, host: str, port: int, open_browser: bool) -> None:
    """Serve the page at an address, print it, and return when the user stops the server.

    Raises KshotError for an address that cannot be had.
    """
    with _bound(host, port) as bound:
        token = None if _is_loopback(host) else secrets.token_urlsafe(24)
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
        if token is not None:
            address += f"?token={token}"
        config = uvicorn.Config(
            make_app(segmenter, token),
            log_level="warning",
            server_header=False,
            http=Connection,
            ws="none",
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
        typer.echo(
            f"kshot is at {address}\nStop it with Ctrl+C; what it keeps of your photographs then goes too."
        )
        if open_browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise KshotError(
            f"Port {port} of {host} cannot be had ({error.strerror}). Choose another with --port; 0 is any."
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
