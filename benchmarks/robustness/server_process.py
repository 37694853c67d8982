"""A real `kshot serve`, in a process of its own and an empty folder, and what one needs to ask it."""

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


class Answer(NamedTuple):
    """What the server said; headers by their names in small letters."""

    status: int
    headers: Headers
    content: bytes


class Part(NamedTuple):
    """A file in a form; its name as it is sent, in bytes."""

    field: str
    name: bytes
    content: bytes


class Server:
    """A server that runs; files that it makes for itself are in `temporary`."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path, address: str) -> None:
        self.process, self.temporary, self._log = process, folder / "tmp", folder / "log"
        found = re.search(r":(\d+)/(?:\?token=(\S+))?", address)
        if found is None:
            raise RuntimeError(f"The server did not start:\n{self._log.read_text()}")
        self.port, self.token = int(found[1]), found[2]

    def ask(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        headers: Headers | None = None,
        timeout: float = 60,
    ) -> Answer:
        """Ask once, on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, content or None, headers or {})
            answer = connection.getresponse()
            return Answer(
                answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()

    def post(self, path: str, *parts: Part) -> Answer:
        """Post a form."""
        return self.ask("POST", path, *form(*parts))

    def memory(self) -> tuple[float, float]:
        """Give what the server holds now, and what it held at its peak, in MB."""
        return memory(self.process.pid)

    def forget_peak(self) -> float:
        """Let the peak be what is held now, and give that, in MB."""
        self.memory()  # says so where there is no /proc
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.memory()[1]

    def num_tracebacks(self) -> int:
        """Count what the server did not foresee."""
        return self._log.read_text().count("Traceback (most recent call last)")

    def stop(self) -> bool:
        """Press Ctrl+C; say whether the server then ends by itself, and leaves nothing."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            return False
        return not list(self.temporary.glob("kshot-*"))


@contextmanager
def served(folder: Path, *options: str, code: str = SERVE) -> Iterator[Server]:
    """Serve the default model at a free port, with a folder of its own to work in; ends with the block."""
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


def begin(server: Server) -> str:
    """Begin a session; give its path."""
    return f"{API}/{json.loads(server.ask('POST', API).content)['id']}"


def form(*parts: Part) -> tuple[bytes, Headers]:
    """Write a form's body and its header, with names as they are given."""
    body = b"".join(
        b'--kshot\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
        % (field.encode(), name, content)
        for field, name, content in parts
    )
    return body + b"--kshot--\r\n", {"Content-Type": "multipart/form-data; boundary=kshot"}


def png(picture: Image.Image) -> bytes:
    """Write a picture as a PNG."""
    content = BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def labelled(name: bytes = b"cup.png", width: int = 120, height: int = 90) -> tuple[Part, Part]:
    """Give a photograph and its mask, as parts of a form."""
    picture, mask = scene(width=width, height=height)
    return Part("photo", name, png(picture)), Part("mask", name, png(Image.fromarray(mask)))


def query(index: int = 0, width: int = 120, height: int = 90) -> Part:
    """Give one of many photographs that differ, as a part of a form."""
    return Part("photo", b"%d.png" % index, png(scene(5 + index % 60, 40 - index % 30, width, height)[0]))


def settle(server: Server, path: str, seconds: float = 60) -> bool:
    """Wait until a session's photographs are segmented; say whether they are."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        content = server.ask("GET", path).content
        if not any(b'"status":"%s"' % status in content for status in (b"queued", b"working")):
            return True
        time.sleep(0.1)
    return False


def counted(statuses: Sequence[int]) -> str:
    """Tell how often each status came, as in "12 x 413"."""
    return ", ".join(f"{statuses.count(status)} x {status}" for status in sorted(set(statuses)))
