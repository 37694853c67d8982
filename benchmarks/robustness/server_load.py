"""The server under load: many clients at once, slow ones, and use for a while."""

import json
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.robustness.rows import Found, Row
from benchmarks.robustness.server_process import (
    Answer,
    Server,
    begin,
    counted,
    labelled,
    query,
    served,
    settle,
)

CLIENTS = 64
SESSIONS = 8
IN_EACH = 480
"""Photographs that clients of a session try to queue; it takes 500."""

QUEUE = 2000
"""As src/kshot/web/limits.py says; those that come at once may exceed it."""

SLOW = 200
SECONDS_BETWEEN_BYTES = 0.5
SLOW_SECONDS = 8.0
ALONE_SECONDS = 2.0
BEFORE = 3.0
"""Seconds in which the slow ones come."""

SOON = 1.0
"""Seconds in which others are answered."""

USERS = 3
USE_SECONDS = 30.0
WARM_UP = 2
"""Sessions of each user before, which load what is needed."""

FLAT = 5.0
"""In percent."""


def many_clients(folder: Path) -> Found:
    """Queue photographs from many clients until the server refuses; then ask it for other things."""
    with served(folder) as server:
        paths = [begin(server) for _ in range(SESSIONS)]
        for path in paths:
            server.post(f"{path}/supports", *labelled())
        photographs = [query(index) for index in range(IN_EACH * SESSIONS // CLIENTS)]
        together = threading.Barrier(CLIENTS)

        def client(index: int) -> list[Answer]:
            together.wait()
            answers = []
            for photograph in photographs:
                answers.append(server.post(f"{paths[index % SESSIONS]}/queries", photograph))
                if answers[-1].status != 201:
                    break
            return answers

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = [answer for one in pool.map(client, range(CLIENTS)) for answer in one]
        longest = json.loads(server.ask("GET", paths[0]).content)["num_waiting"]
        gone = [server.ask("DELETE", path).status for path in paths]
        path = begin(server)
        server.post(f"{path}/supports", *labelled())
        works = set(gone) == {204} and server.post(f"{path}/segment", query()).status == 200
        is_tidy = server.stop() and not server.num_tracebacks()
    busy = [answer for answer in answers if answer.status == 503]
    wise = sum(answer.headers.get("retry-after", "").isdecimal() for answer in busy)
    figure = f"{counted([answer.status for answer in answers])}, {wise} with Retry-After; {longest:,} wait"
    if not (works and is_tidy):
        figure += "; then it does not work, or leaves something"
    is_bounded = {answer.status for answer in answers} == {201, 503} and longest < QUEUE + CLIENTS
    return Found(figure, is_bounded and wise == len(busy) and works and is_tidy)


def slow_clients(folder: Path) -> Found:
    """Hold connections with requests that never end, and answers that nobody reads; ask as somebody else."""
    with served(folder) as server:
        path = begin(server)
        one = json.loads(server.post(f"{path}/supports", *labelled()).content)["id"]
        alone, _ = _ask_around(server, path, ALONE_SECONDS)
        is_over = threading.Event()
        kinds = _never_ending(path, f"{path}/photographs/{one}/labels.png")
        attack = threading.Thread(target=_drip, args=(server, kinds, is_over))
        attack.start()
        time.sleep(BEFORE)
        waits, statuses = _ask_around(server, path, SLOW_SECONDS)
        works = settle(server, path)
        is_tidy = server.stop() and not server.num_tracebacks()
        is_over.set()
        attack.join()
    figure = f"{SLOW} slow ones; {len(waits)} requests of others took {max(waits):.2f} s at most"
    figure += f", {max(alone):.2f} s without them"
    if not (works and set(statuses) <= {200, 201}):
        figure += f": {counted(statuses)}"
    figure += f"; Ctrl+C {'ends' if is_tidy else 'does not end'} it meanwhile"
    return Found(figure, set(statuses) <= {200, 201} and max(waits) < SOON and works and is_tidy)


def _ask_around(server: Server, path: str, seconds: float) -> tuple[list[float], list[int]]:
    """Look at the page and a session, and queue photographs; give how long that took, and the statuses."""
    waits, statuses, until = [], [], time.monotonic() + seconds
    while time.monotonic() < until:
        for where in ("/", path, f"{path}/queries"):
            start = time.monotonic()
            answer = server.post(where, query()) if "queries" in where else server.ask("GET", where)
            waits.append(time.monotonic() - start)
            statuses.append(answer.status)
        time.sleep(0.1)
    return waits, statuses


def _never_ending(path: str, labels: str) -> list[bytes]:
    """Give beginnings of requests to which bytes can be added forever, and requests of much to read."""
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
    """Add a byte to each of many requests now and then, and read nothing; who is cut off comes again."""
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


def steady_use(folder: Path) -> Found:
    """Use the server as a few people do, session after session; look at its memory."""
    with served(folder) as server, ThreadPoolExecutor(USERS) as pool:
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
        figure += f"; {counted(bad)}; {'nothing' if is_tidy else 'something'} left"
    return Found(figure, abs(change) <= FLAT and not bad and is_tidy)


def _use(server: Server, until: float) -> list[int]:
    """Use it again and again; give the answers' statuses."""
    statuses: list[int] = []
    while time.monotonic() < until:
        statuses += _use_once(server)
    return statuses


def _use_once(server: Server) -> list[int]:
    """Label, queue, look, correct, download and leave; give the answers' statuses."""
    path = begin(server)
    statuses = [server.post(f"{path}/supports", *labelled()).status for _ in range(2)]
    statuses += [server.post(f"{path}/queries", query(index, 400, 300)).status for index in range(4)]
    settle(server, path)
    for one in json.loads(server.ask("GET", path).content)["photographs"]:
        place = f"{path}/photographs/{one['id']}"
        statuses += [
            server.ask("GET", f"{place}/{view}.jpg?side=240").status for view in ("photo", "overlay")
        ]
    drawn = server.ask("GET", f"{place}/labels.png")
    statuses += [drawn.status, server.ask("PUT", f"{place}/labels.png", drawn.content).status]
    settle(server, path)
    return [*statuses, server.ask("GET", f"{path}/results.zip").status, server.ask("DELETE", path).status]


ROWS = (
    Row("server-clients", "server: 64 clients at once", "503 with Retry-After, no other 5xx", many_clients),
    Row("server-slow", "server: 200 slow clients", "others are answered within 1 s", slow_clients),
    Row("server-use", "server: use by three people, less than a minute", "memory flat ± 5 %", steady_use),
)
