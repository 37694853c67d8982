"""Hostile uploads: names that are paths, and huge or malformed bodies."""

import json
import re
import socket
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from itertools import chain, islice, product, repeat
from pathlib import Path, PurePosixPath, PureWindowsPath
from select import select
from typing import NamedTuple

from benchmarks.robustness.rows import Outcome, Row
from benchmarks.robustness.server_process import (
    API,
    Server,
    count_statuses,
    create_session,
    running_server,
    support_parts,
)

SESSIONS, IN_EACH = 10, 20
"""A session takes 20 labelled images; its zip contains them without predictions."""

STARTS = (
    *(b"", b"../", b"../../", b"../" * 20, b"./../", b"....//", b"..;/", b"/", b"//host/share/", b"file:///"),
    *(b"..\\", b"..\\..\\", b"C:\\", b"C:", b"\\\\host\\share\\", b"\\\\.\\", b"../..\\", b"~/", b"$HOME/"),
    *(b"%2e%2e/", b"%2e%2e%2f", b"%252e%252e%252f", b"..%5c", b"..%00/", b"\0../", b"../\0", b"\xc0\xae./"),
    *(b"\xc0\xae\xc0\xae\xc0\xaf", b"..\xc0\xaf", b"..\xff/"),  # overlong UTF-8 of a dot and a slash
    "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}\N{FULLWIDTH SOLIDUS}".encode(),
    *(
        "..\N{DIVISION SLASH}".encode(),
        "\N{RIGHT-TO-LEFT OVERRIDE}../".encode(),
        "\N{ZERO WIDTH SPACE}../".encode(),
    ),
)
ENDS = (b"created.png", b"..", b"CON.png", b"instances.json", b"m" * 5000, "ü😀".encode() * 100)

EXPECTED_FILES = re.compile(r"tmp/kshot-\w+(/[0-9a-f]{16}(/[0-9a-f]{16}\.(upload|labels\.png))?)?")
"""Files that the server may create."""

MISSING_PATHS = (
    *(
        f"/static/{up}pyproject.toml"
        for up in ("../" * 5, "..%2f" * 5, "%2e%2e/" * 5, "..%5c" * 5, "..%252f" * 5)
    ),
    *(
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/..",
        "/static/%2e%2e%2fauth.py",
        "//etc/passwd",
    ),
    *(f"{API}/{up}" for up in ("..%2f..", "%2e%2e", "..%5c..", "%00", "%2fetc%2fpasswd")),
)
"""Paths that must not return a file."""

DEVICE = re.compile(r"(^|/)(con|prn|aux|nul|com\d|lpt\d) *(\.|/|$)", re.IGNORECASE)
"""Reserved names of Windows."""

LIMIT = 64 * 2**20
"""Maximum size of a request body, as in docs/server.md."""

MAX_GROWTH = (LIMIT + 20 * 2**20) / 10**6
"""In MB."""

MAX_SENT = 3 * 10**9
"""Bytes that are sent unless the server refuses."""

UNREAD = 2 * LIMIT
"""Bytes that are sent before the client checks for a response."""

PAUSE = 0.1
"""Seconds after a response, in which the server frees the memory of the request."""

FORM, JSON = "Content-Type: multipart/form-data; boundary=kshot", "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
START = b'--kshot\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n'
END = b"\r\n--kshot--\r\n"


def hostile_names(folder: Path) -> Outcome:
    """Upload images whose names are paths; check all created files and the names in the zips."""
    deep = folder / "a" / "b" / "c"
    deep.mkdir(parents=True)
    names = list(islice((start + end for end, start in product(ENDS, STARTS)), SESSIONS * IN_EACH - 2))
    names += [str(folder / "created.png").encode(), b"/tmp/kshot-robustness/created.png"]
    with running_server(deep) as server:
        before, entries, refused = set(folder.rglob("*")), [], 0
        for start in range(0, len(names), IN_EACH):
            path = create_session(server)
            responses = [
                server.post_form(f"{path}/supports", *support_parts(name)) for name in names[start:][:IN_EACH]
            ]
            refused += sum(response.status == 400 for response in responses)
            entries += _entries(server.request("GET", f"{path}/results.zip").content)
        created = [
            str(path.relative_to(deep))
            for path in set(folder.rglob("*")) - before
            if path.is_relative_to(deep)
        ]
        astray = len(set(folder.rglob("*")) - before) - sum(
            bool(EXPECTED_FILES.fullmatch(path)) for path in created
        )
        astray += Path("/tmp/kshot-robustness").exists()
        num_read = sum(server.request("GET", path).status == 200 for path in MISSING_PATHS)
        is_tidy = server.stop() and not server.num_tracebacks()
    bad = sum(map(escapes, entries))
    inside = sum(entry.endswith("_mask.png") for entry in entries)
    figure = f"{astray}/{len(names)} leave the folder; {inside} accepted, {refused} refused as malformed"
    figure += f"; {bad} of {len(entries)} names in zips lead out of the archive"
    if num_read or not is_tidy:
        figure += f"; {num_read} paths read, {'no' if is_tidy else 'a'} traceback or leftover file"
    is_met = not (astray or bad or num_read) and inside + refused == len(names) and is_tidy
    return Outcome(figure, is_met)


def _entries(content: bytes) -> list[str]:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def escapes(name: str) -> bool:
    """Return whether a name in a zip leads out of its folder, or cannot be unpacked, on any system."""
    if any(len(part.encode()) > 255 for part in name.split("/")) or set(name) & set('\\:*?"<>|\0'):
        return True
    return bool(DEVICE.search(name)) or any(
        path.is_absolute() or path.anchor or ".." in path.parts
        for path in (PurePosixPath(name), PureWindowsPath(name))
    )


def huge_uploads(folder: Path) -> Outcome:
    """Send bodies that are too long, declared or not, and malformed ones; measure the server's memory."""
    with running_server(folder) as server:
        path = create_session(server)
        one = json.loads(server.post_form(f"{path}/supports", *support_parts()).content)["id"]
        labels = f"{path}/images/{one}/labels.png"
        before = server.reset_peak_memory()
        huge = [_send(server, request) for request in _huge(path, labels)]
        malformed = [_send(server, request) for request in _malformed(path, labels)]
        growth = server.memory()[1] - before
        works = server.request("GET", path).status == 200
        is_tidy = server.stop() and not server.num_tracebacks()
    figure = f"{count_statuses(huge)} for huge bodies; {count_statuses(malformed)} for malformed ones"
    figure += f"; memory grows by {growth:.0f} MB"
    if not (works and is_tidy):
        figure += "; then it fails or leaves files"
    is_met = set(huge) == {413} and set(malformed) <= {400, 422} and growth < MAX_GROWTH
    return Outcome(figure, is_met and works and is_tidy)


class Request(NamedTuple):
    """A request that is sent in pieces. head: its header lines."""

    method: str
    path: str
    head: Sequence[str]
    body: Iterable[bytes]


def _huge(path: str, labels: str) -> Iterator[Request]:
    """Yield requests whose bodies are too long, as declared or as sent."""
    part, much = START % (b"image", b'; filename="p"'), repeat(bytes(2**20))
    for endpoint in ("supports", "queries", "segment"):
        yield Request("POST", f"{path}/{endpoint}", (FORM, f"Content-Length: {MAX_SENT}"), ())
        yield Request("POST", f"{path}/{endpoint}", (FORM, CHUNKED), chain([part], much))
    yield Request("POST", f"{path}/queries", (FORM, CHUNKED), chain([part], repeat(bytes(3000))))
    yield Request("PUT", labels, (f"Content-Length: {MAX_SENT}",), ())
    yield Request("PUT", labels, (CHUNKED,), much)
    yield Request("PUT", f"{path}/classes", (JSON, CHUNKED), chain([b"["], repeat(b"0," * 2**19)))


def _malformed(path: str, labels: str) -> Iterator[Request]:
    """Yield requests with contradictory headers, or whose body is not an image."""
    queries, part = f"{path}/queries", START % (b"image", b'; filename="p"')
    for lengths in (("-1",), ("1e9",), ("1_0",), ("10", "20"), ("9" * 5000,), ("",)):
        yield Request("POST", queries, (FORM, *(f"Content-Length: {length}" for length in lengths)), ())
    yield Request("POST", queries, (FORM, "Content-Length: 100"), repeat(bytes(2**16), 16))
    yield Request("POST", queries, (FORM, CHUNKED, "Content-Length: 10"), [part, END])
    yield Request("POST", queries, (FORM, CHUNKED), repeat(part + b"\r\n", 10**5))
    yield Request(
        "POST", queries, (FORM, CHUNKED), repeat(START % (b"text", b"") + b"x" * 10**6 + b"\r\n", 60)
    )
    yield Request("POST", queries, (FORM, CHUNKED), chain([b"--kshot\r\n"], repeat(b"A: b\r\n" * 1000, 8000)))
    yield Request("POST", queries, (FORM, CHUNKED), chain([part[:-4]], repeat(b"x" * 2**20, 60)))
    yield Request("POST", queries, (FORM, CHUNKED), chain([part], repeat(bytes(2**20), 63), [END]))
    yield Request("PUT", labels, (CHUNKED,), repeat(bytes(2**20), 63))
    yield Request(
        "PUT", f"{path}/classes", (JSON, CHUNKED), chain([b"["], repeat(b"0," * 2**10, 99), [b"0]"])
    )


def _send(server: Server, request: Request) -> int:
    """Send a request, at first without reading; return the status, or 0 without a response."""
    head = (f"{request.method} {request.path} HTTP/1.1", "Host: localhost", *request.head, "", "")
    is_chunked, num_sent = CHUNKED in request.head, 0
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall("\r\n".join(head).encode())
        with suppress(ConnectionError):
            for piece in chain(request.body, [b""]):
                if num_sent > MAX_SENT or (num_sent > UNREAD and select([connection], [], [], 0)[0]):
                    break
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
                num_sent += len(piece)
        response = HTTPResponse(connection, method=request.method)
        try:
            response.begin()
        except (HTTPException, OSError):
            return 0
        finally:
            time.sleep(PAUSE)
        return response.status


ROWS = (
    Row("server-names", "server: 200 uploads whose names are paths", "0/200 leave the folder", hostile_names),
    Row(
        "server-uploads",
        "server: huge uploads, chunked or with a false length; malformed ones",
        "413 or 400; memory grows < 20 MB more than the limit of 64 MB",
        huge_uploads,
    ),
)
