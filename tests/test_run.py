import re
import socket

import pytest
from make_data import colour_segmenter
from test_cli import run

from kshot.cli import serve as commands
from kshot.errors import KshotError
from kshot.web import run as run_module
from kshot.web.concurrency import ConnectionLimitProtocol


@pytest.fixture
def runs(monkeypatch):
    """Collect the ports that servers would use."""
    ports = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: ports.append(sockets[0].getsockname()[1]))
    return ports


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_on_this_machine_the_address_has_no_token(runs, capsys, host):
    run_module.run_server(colour_segmenter(), host, 0, open_browser=False)
    (port,) = runs
    assert f"kshot is running at http://{host}:{port}/\n" in capsys.readouterr().out


def test_the_server_limits_connections_and_shutdown_time(monkeypatch):
    served = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: served.append(self.config))
    run_module.run_server(colour_segmenter(), "127.0.0.1", 0, open_browser=False)
    (config,) = served
    assert config.http is ConnectionLimitProtocol
    assert config.timeout_graceful_shutdown == run_module.SHUTDOWN_SECONDS


@pytest.mark.usefixtures("runs")
def test_on_a_network_the_address_has_a_new_token_each_time(capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    tokens = set()
    for _ in range(2):
        run_module.run_server(colour_segmenter(), "0.0.0.0", 0, open_browser=True)
        printed = capsys.readouterr().out
        tokens.add(re.search(r"http://0\.0\.0\.0:\d+/\?token=(\S{32,})\n", printed)[1])
    assert len(tokens) == 2
    assert opened[0].startswith("http://0.0.0.0:")


def test_a_port_in_use_is_reported():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(KshotError, match=f"Port {port} of 127.0.0.1 is not available"):
            run_module.run_server(colour_segmenter(), "127.0.0.1", port, open_browser=False)


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    assert run("serve") == 2
    assert "pip install 'kshot[serve]'" in capsys.readouterr().err


@pytest.mark.usefixtures("runs")
def test_the_command_passes_its_options_on(capsys):
    assert run("serve", "--port", 0, "--image-size", 33, "--device", "cpu") == 0
    assert "Press Ctrl+C to stop" in capsys.readouterr().out
    assert run("serve", "--model", "gone") == 2
    assert "no model or folder 'gone'" in capsys.readouterr().err
