import socket
import tempfile
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from make_data import colour_segmenter
from starlette.testclient import TestClient

from kshot.web import concurrency as crowd
from kshot.web.concurrency import Connection
from kshot.web.server import make_app

HALF = b"PUT /api/sessions/none/classes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
STARTS = (b"", b"GET / HTTP/1.1\r\nHost: ", HALF)
"""Requests that do not end."""


@contextmanager
def server():
    """Serve as `kshot serve` does, but at a file, as tests have no network; give its path."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as bound:
        path = f"{folder}/socket"
        bound.bind(path)
        bound.listen()
        config = uvicorn.Config(make_app(colour_segmenter()), log_level="warning", http=Connection)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
        thread.start()
        try:
            yield path
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


def connect(path, start):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(path)
    connection.sendall(start)
    return connection


def ask(path):
    with connect(path, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as connection:
        return int(connection.recv(12).split()[1])


def is_closed(connection):
    connection.settimeout(0.2)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("start", STARTS)
def test_the_oldest_that_keep_the_server_waiting_make_way(monkeypatch, start):
    monkeypatch.setattr(crowd, "MAX_CONNECTIONS", 4)
    with server() as path:
        slow = []
        for _ in range(4):
            slow.append(connect(path, start))
            time.sleep(0.05)
        assert [ask(path) for _ in range(2)] == [200, 200]
        # The first one went for the first question; that one's connection may have gone before the second.
        assert is_closed(slow[0])
        assert not is_closed(slow[3])
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("start", STARTS)
def test_slow_clients_do_not_keep_the_server_from_ending(start):
    start_of_stop = 0.0
    with server() as path:
        slow = connect(path, start)
        assert ask(path) == 200
        start_of_stop = time.monotonic()
    assert time.monotonic() - start_of_stop < 5
    slow.close()


def test_more_requests_than_can_be_answered_are_told_to_come_back(monkeypatch):
    with TestClient(make_app(colour_segmenter()), base_url="http://127.0.0.1") as client:
        assert client.get("/").status_code == 200
        monkeypatch.setattr(crowd, "MAX_REQUESTS", 0)
        answer = client.get("/")
        assert answer.status_code == 503
        assert "again in a while" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
        assert "content-security-policy" in answer.headers
        monkeypatch.undo()
        assert client.get("/").status_code == 200
