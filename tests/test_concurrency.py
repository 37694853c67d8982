import socket
import tempfile
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from make_data import colour_segmenter
from starlette.testclient import TestClient

from kshot.web import concurrency
from kshot.web.concurrency import ConnectionLimitProtocol
from kshot.web.server import make_app

HALF = b"PUT /api/sessions/none/classes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
STARTS = (b"", b"GET / HTTP/1.1\r\nHost: ", HALF)
"""Incomplete requests."""


@contextmanager
def server():
    """Run the server on a Unix socket, as tests have no network; yield its path."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as bound:
        path = f"{folder}/socket"
        bound.bind(path)
        bound.listen()
        config = uvicorn.Config(
            make_app(colour_segmenter()), log_level="warning", http=ConnectionLimitProtocol
        )
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
def test_the_oldest_waiting_connection_is_closed(monkeypatch, start):
    monkeypatch.setattr(concurrency, "MAX_CONNECTIONS", 4)
    with server() as path:
        slow = []
        for _ in range(4):
            slow.append(connect(path, start))
            time.sleep(0.05)
        assert [ask(path) for _ in range(2)] == [200, 200]
        # The first connection was closed for the first request; the second may not have needed to close one.
        assert is_closed(slow[0])
        assert not is_closed(slow[3])
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("start", STARTS)
def test_slow_clients_do_not_delay_shutdown(start):
    start_of_stop = 0.0
    with server() as path:
        slow = connect(path, start)
        assert ask(path) == 200
        start_of_stop = time.monotonic()
    assert time.monotonic() - start_of_stop < 5
    slow.close()


def test_too_many_requests_get_503_with_retry_after(monkeypatch):
    with TestClient(make_app(colour_segmenter()), base_url="http://127.0.0.1") as client:
        assert client.get("/").status_code == 200
        monkeypatch.setattr(concurrency, "MAX_REQUESTS", 0)
        response = client.get("/")
        assert response.status_code == 503
        assert "Try again later" in response.json()["detail"]
        assert int(response.headers["retry-after"]) > 0
        assert "content-security-policy" in response.headers
        monkeypatch.undo()
        assert client.get("/").status_code == 200
