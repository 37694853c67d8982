import re
import socket

import pytest
from make_data import colour_segmenter
from test_cli import run

from kshot.cli import serve as commands
from kshot.errors import KshotError
from kshot.web import run as listen
from kshot.web.concurrency import Connection


@pytest.fixture
def runs(monkeypatch):
    """Collect the ports at which servers would run."""
    ports = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: ports.append(sockets[0].getsockname()[1]))
    return ports


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_on_this_machine_the_address_has_no_token(runs, capsys, host):
    listen.listen(colour_segmenter(), host, 0, open_browser=False)
    (port,) = runs
    assert f"kshot is at http://{host}:{port}/\n" in capsys.readouterr().out


def test_slow_clients_make_way_and_do_not_hold_up_the_end(monkeypatch):
    served = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: served.append(self.config))
    listen.listen(colour_segmenter(), "127.0.0.1", 0, open_browser=False)
    (config,) = served
    assert config.http is Connection
    assert config.timeout_graceful_shutdown == listen.SECONDS_TO_FINISH


@pytest.mark.usefixtures("runs")
def test_elsewhere_it_has_a_token_that_differs_each_time(capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    tokens = set()
    for _ in range(2):
        listen.listen(colour_segmenter(), "0.0.0.0", 0, open_browser=True)
        printed = capsys.readouterr().out
        tokens.add(re.search(r"http://0\.0\.0\.0:\d+/\?token=(\S{32,})\n", printed)[1])
    assert len(tokens) == 2
    assert opened[0].startswith("http://0.0.0.0:")


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KshotError, match=f"Port {port} of 127.0.0.1 cannot be had"):
            listen.listen(colour_segmenter(), "127.0.0.1", port, open_browser=False)


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    assert run("serve") == 2
    assert "pip install 'kshot[serve]'" in capsys.readouterr().err


@pytest.mark.usefixtures("runs")
def test_the_command_hands_its_options_on(capsys):
    assert run("serve", "--port", 0, "--image-size", 33, "--device", "cpu") == 0
    assert "Stop it with Ctrl+C" in capsys.readouterr().out
    assert run("serve", "--model", "gone") == 2
    assert "no model or folder 'gone'" in capsys.readouterr().err
