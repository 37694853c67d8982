"""The server under load: many clients, slow clients, and steady use."""

import json
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.robustness.rows import Outcome, Row
from benchmarks.robustness.server_process import (
    Response,
    Server,
    count_statuses,
    create_session,
    query_part,
    running_server,
    support_parts,
    wait_until_segmented,
)

CLIENTS = 64
SESSIONS = 8
IN_EACH = 480
"""Images that the clients of a session try to queue; the limit is 500."""

QUEUE = 2000
"""As in src/kshot/web/limits.py; simultaneous requests may exceed it."""

SLOW = 200
SECONDS_BETWEEN_BYTES = 0.5
SLOW_SECONDS = 8.0
BASELINE_SECONDS = 2.0
RAMP_SECONDS = 3.0
"""Time for the slow clients to connect."""

MAX_WAIT = 1.0
"""Seconds within which other clients must get a response."""

USERS = 3
USE_SECONDS = 30.0
WARM_UP = 2
"""Sessions of each user before the measurement."""

MAX_CHANGE = 5.0
"""In percent."""


def many_clients(folder: Path) -> Outcome:
    """Queue images from many clients until the server refuses, then check that it still works."""
    with running_server(folder) as server:
        paths = [create_session(server) for _ in range(SESSIONS)]
        for path in paths:
            server.post_form(f"{path}/supports", *support_parts())
        images = [query_part(index) for index in range(IN_EACH * SESSIONS // CLIENTS)]
        barrier = threading.Barrier(CLIENTS)

        def client(index: int) -> list[Response]:
            barrier.wait()
            responses = []
            for image in images:
                responses.append(server.post_form(f"{paths[index % SESSIONS]}/queries", image))
                if responses[-1].status != 201:
                    break
            return responses

        with ThreadPoolExecutor(CLIENTS) as pool:
            responses = [response for one in pool.map(client, range(CLIENTS)) for response in one]
        longest = json.loads(server.request("GET", paths[0]).content)["queue_length"]
        deleted = [server.request("DELETE", path).status for path in paths]
        path = create_session(server)
        server.post_form(f"{path}/supports", *support_parts())
        works = set(deleted) == {204} and server.post_form(f"{path}/segment", query_part()).status == 200
        is_tidy = server.stop() and not server.num_tracebacks()
    busy = [response for response in responses if response.status == 503]
    num_retry = sum(response.headers.get("retry-after", "").isdecimal() for response in busy)
    statuses = [response.status for response in responses]
    figure = f"{count_statuses(statuses)}, {num_retry} with Retry-After; {longest:,} queued"
    if not (works and is_tidy):
        figure += "; then it fails or leaves files"
    is_bounded = set(statuses) == {201, 503} and longest < QUEUE + CLIENTS
    return Outcome(figure, is_bounded and num_retry == len(busy) and works and is_tidy)


def slow_clients(folder: Path) -> Outcome:
    """Hold connections with endless requests and unread responses; measure the wait of other clients."""
    with running_server(folder) as server:
        path = create_session(server)
        one = json.loads(server.post_form(f"{path}/supports", *support_parts()).content)["id"]
        baseline, _ = _measure_waits(server, path, BASELINE_SECONDS)
        is_over = threading.Event()
        kinds = _endless_requests(path, f"{path}/images/{one}/labels.png")
        attack = threading.Thread(target=_drip, args=(server, kinds, is_over))
        attack.start()
        time.sleep(RAMP_SECONDS)
        waits, statuses = _measure_waits(server, path, SLOW_SECONDS)
        works = wait_until_segmented(server, path)
        is_tidy = server.stop() and not server.num_tracebacks()
        is_over.set()
        attack.join()
    figure = f"{SLOW} slow clients; {len(waits)} requests of others took at most {max(waits):.2f} s"
    figure += f", {max(baseline):.2f} s without them"
    if not (works and set(statuses) <= {200, 201}):
        figure += f": {count_statuses(statuses)}"
    figure += f"; Ctrl+C {'stops' if is_tidy else 'does not stop'} the server meanwhile"
    return Outcome(figure, set(statuses) <= {200, 201} and max(waits) < MAX_WAIT and works and is_tidy)


def _measure_waits(server: Server, path: str, seconds: float) -> tuple[list[float], list[int]]:
    """Request the page and a session, and queue images; return the seconds and the statuses."""
    waits, statuses, until = [], [], time.monotonic() + seconds
    while time.monotonic() < until:
        for target in ("/", path, f"{path}/queries"):
            start = time.monotonic()
            is_upload = target.endswith("queries")
            response = server.post_form(target, query_part()) if is_upload else server.request("GET", target)
            waits.append(time.monotonic() - start)
            statuses.append(response.status)
        time.sleep(0.1)
    return waits, statuses


def _endless_requests(path: str, labels: str) -> list[bytes]:
    """Return the starts of endless requests, and requests with large responses."""
    host = "HTTP/1.1\r\nHost: localhost\r\n"
    kind = "Content-Type: multipart/form-data; boundary=kshot\r\n"
    return [
        b"",
        f"GET / {host}X: ".encode(),
        f"POST {path}/queries {host}{kind}Content-Length: 999999\r\n\r\n--kshot".encode(),
        f"PUT {labels} {host}Content-Length: 999999\r\n\r\n".encode(),
        f"GET /static/examples/coins.jpg {host}\r\n".encode() * 200,
    ]


def _drip(server: Server, kinds: list[bytes], is_over: threading.Event) -> None:
    """Send single bytes on many connections and read nothing; reconnect those that are closed."""
    connections: list[socket.socket | None] = [None] * SLOW
    while not is_over.wait(SECONDS_BETWEEN_BYTES):
        for number, connection in enumerate(connections):
            try:
                if connection is not None:
                    connection.send(b"x")
                    continue
                connection = connections[number] = socket.socket()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(1)
                connection.connect(("127.0.0.1", server.port))
                connection.send(kinds[number % len(kinds)])
            except OSError:
                if connection is not None:
                    connection.close()
                connections[number] = None
    for connection in filter(None, connections):
        connection.close()


def steady_use(folder: Path) -> Outcome:
    """Use the server like a few users, session after session; measure its memory."""
    with running_server(folder) as server, ThreadPoolExecutor(USERS) as pool:
        for _ in range(WARM_UP):
            list(pool.map(_use_once, [server] * USERS))
        until, held = time.monotonic() + USE_SECONDS, []
        users = [pool.submit(_use, server, until) for _ in range(USERS)]
        while time.monotonic() < until:
            time.sleep(0.5)
            held.append(server.memory()[0])
        statuses = [status for user in users for status in user.result()]
        is_tidy = server.stop() and not server.num_tracebacks()
    third = len(held) // 3
    first, last = statistics.mean(held[:third]), statistics.mean(held[-third:])
    change = 100 * (last / first - 1)
    figure = f"{change:+.1f} % from {first:.0f} MB, in {USE_SECONDS:.0f} s and {len(statuses):,} requests"
    bad = [status for status in statuses if status >= 300]
    if bad or not is_tidy:
        figure += f"; {count_statuses(bad)}; {'no files' if is_tidy else 'files'} left"
    return Outcome(figure, abs(change) <= MAX_CHANGE and not bad and is_tidy)


def _use(server: Server, until: float) -> list[int]:
    """Repeat sessions until a time; return the statuses."""
    statuses: list[int] = []
    while time.monotonic() < until:
        statuses += _use_once(server)
    return statuses


def _use_once(server: Server) -> list[int]:
    """Label, queue, view, correct, download and delete; return the statuses."""
    path = create_session(server)
    statuses = [server.post_form(f"{path}/supports", *support_parts()).status for _ in range(2)]
    statuses += [
        server.post_form(f"{path}/queries", query_part(index, 400, 300)).status for index in range(4)
    ]
    wait_until_segmented(server, path)
    for one in json.loads(server.request("GET", path).content)["images"]:
        url = f"{path}/images/{one['id']}"
        statuses += [
            server.request("GET", f"{url}/{view}.jpg?side=240").status for view in ("image", "overlay")
        ]
    drawn = server.request("GET", f"{url}/labels.png")
    statuses += [drawn.status, server.request("PUT", f"{url}/labels.png", drawn.content).status]
    wait_until_segmented(server, path)
    return [
        *statuses,
        server.request("GET", f"{path}/results.zip").status,
        server.request("DELETE", path).status,
    ]


ROWS = (
    Row(
        "server-clients",
        "server: 64 simultaneous clients",
        "503 with Retry-After, no other 5xx",
        many_clients,
    ),
    Row("server-slow", "server: 200 slow clients", "others get a response within 1 s", slow_clients),
    Row("server-use", "server: three users, less than a minute", "memory flat ± 5 %", steady_use),
)
