"""Run the server until it is stopped."""

import ipaddress
import secrets
import socket
import webbrowser

import typer
import uvicorn

from kshot.errors import KshotError
from kshot.segmenter import Segmenter
from kshot.web.concurrency import ConnectionLimitProtocol
from kshot.web.server import make_app

SHUTDOWN_SECONDS = 5
"""Time that running requests have to finish when the server is stopped."""


def run_server(segmenter: Segmenter, host: str, port: int, open_browser: bool) -> None:
    """Serve the page at an address, print the address, and return when the user stops the server.

    Raises KshotError if the address is not available.
    """
    with _bind(host, port) as bound:
        token = None if _is_loopback(host) else secrets.token_urlsafe(24)
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
        if token is not None:
            address += f"?token={token}"
        config = uvicorn.Config(
            make_app(segmenter, token),
            log_level="warning",
            server_header=False,
            http=ConnectionLimitProtocol,
            ws="none",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        typer.echo(
            f"kshot is running at {address}\nPress Ctrl+C to stop. Uploaded images are deleted on exit."
        )
        if open_browser:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[bound])


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise KshotError(
            f"Port {port} of {host} is not available ({error.strerror}). Choose another one with --port; "
            "0 selects a free port."
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
