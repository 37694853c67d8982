"""A real `kshot serve` in its own process and empty folder, and a client for it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks.robustness.isolated import memory
from benchmarks.robustness.samples import scene

SERVE = "from kshot.cli.main import main; main()"

SECONDS_TO_STOP = 30

API = "/api/sessions"

Headers = dict[str, str]


class Response(NamedTuple):
    """A response of the server; header names are in lower case."""

    status: int
    headers: Headers
    content: bytes


class FilePart(NamedTuple):
    """A file in a form; its name as sent, in bytes."""

    field: str
    name: bytes
    content: bytes


class Server:
    """A running server; its temporary files are in `temporary`."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path, address: str) -> None:
        self.process, self.temporary, self._log = process, folder / "tmp", folder / "log"
        found = re.search(r":(\d+)/(?:\?token=(\S+))?", address)
        if found is None:
            raise RuntimeError(f"The server did not start:\n{self._log.read_text()}")
        self.port, self.token = int(found[1]), found[2]

    def request(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Headers | None = None,
        timeout: float = 60,
    ) -> Response:
        """Send a request on a new connection."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, content or None, headers or {})
            response = connection.getresponse()
            return Response(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()

    def post_form(self, path: str, *parts: FilePart) -> Response:
        """Post a form."""
        return self.request("POST", path, *encode_form(*parts))

    def memory(self) -> tuple[float, float]:
        """Return the current and the peak memory of the server in MB."""
        return memory(self.process.pid)

    def reset_peak_memory(self) -> float:
        """Reset the peak memory to the current memory; return it in MB."""
        self.memory()  # raises CannotRun without /proc
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory()[1]

    def num_tracebacks(self) -> int:
        """Count the tracebacks that the server has printed."""
        return self._log.read_text().count("Traceback (most recent call last)")

    def stop(self) -> bool:
        """Press Ctrl+C; return whether the server ends by itself and leaves no files."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            return False
        return not list(self.temporary.glob("kshot-*"))


@contextmanager
def running_server(folder: Path, *options: str, code: str = SERVE) -> Iterator[Server]:
    """Serve the default model on a free port, in its own folder, until the block ends."""
    for name in ("tmp", "work"):
        (folder / name).mkdir()
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--port", "0", *options],
            cwd=folder / "work",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        yield Server(process, folder, process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def create_session(server: Server) -> str:
    """Create a session; return its path."""
    return f"{API}/{json.loads(server.request('POST', API).content)['id']}"


def encode_form(*parts: FilePart) -> tuple[bytes, Headers]:
    """Return the body and the header of a form, with unchanged file names."""
    body = b"".join(
        b'--kshot\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        % (field.encode(), name, content)
        for field, name, content in parts
    )
    return body + b"--kshot--\r\n", {"Content-Type": "multipart/form-data; boundary=kshot"}


def png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    content = BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def support_parts(name: bytes = b"cup.png", width: int = 120, height: int = 90) -> tuple[FilePart, FilePart]:
    """Return an image and its mask as parts of a form."""
    image, mask = scene(width=width, height=height)
    return FilePart("image", name, png(image)), FilePart("mask", name, png(Image.fromarray(mask)))


def query_part(index: int = 0, width: int = 120, height: int = 90) -> FilePart:
    """Return image `index` of many different ones, as part of a form."""
    return FilePart("image", b"%d.png" % index, png(scene(5 + index % 60, 40 - index % 30, width, height)[0]))


def wait_until_segmented(server: Server, path: str, seconds: float = 60) -> bool:
    """Wait until the images of a session are segmented; return False after `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        content = server.request("GET", path).content
        if not any(b'"status":"%s"' % status in content for status in (b"queued", b"running")):
            return True
        time.sleep(0.1)
    return False


def count_statuses(statuses: Sequence[int]) -> str:
    """Return how often each status occurs, as in "12 x 413"."""
    return ", ".join(f"{statuses.count(status)} x {status}" for status in sorted(set(statuses)))
