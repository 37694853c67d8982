"""The server and whom it should not trust: strangers, other sites, scripts, requests that are drawn."""

import json
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.robustness.rows import CannotRun, Found, Row
from benchmarks.robustness.server_process import (
    API,
    Answer,
    Headers,
    Server,
    begin,
    labelled,
    query,
    served,
    settle,
)

HOSTS = (
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.5", "0.0.0.0"),
    *("[::2]", "127.0.0.1@evil.example", ""),
)
ELSEWHERE: tuple[Headers, ...] = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)
"""What browsers send for other sites' pages."""

FORGED: tuple[Headers, ...] = (
    {},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer wrong"},
    {"Cookie": "kshot_token="},
    {"Cookie": "kshot_token=wrong"},
    {"Host": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=localhost"},
)

INLINE = re.compile(r"\s(style|srcdoc|on\w+)\s*=|<style|<script(?![^>]*\ssrc=)|javascript:", re.IGNORECASE)
"""What no page may hold; the policy forbids it as well."""

HARMLESS = {"'none'", "'self'", "blob:"}
"""What a policy may allow: nothing inline, and nothing from elsewhere."""

LIVES = 2.0
"""Seconds of a session that nobody asks for, in place of 12 hours."""

SHORT_LIVED = f"""
import kshot.web.run as listen, kshot.web.server as server
from kshot.cli.main import main
from kshot.web.limits import Limits
server.SECONDS_BETWEEN_SWEEPS = 0.2
listen.make_app = lambda segmenter, token: server.make_app(segmenter, token, Limits(seconds_to_live={LIVES}))
main()
"""

CASES = 25
"""That are drawn for each operation, beside those that cover its parameters."""


def strangers(folder: Path) -> Found:
    """Ask under wrong names, as other sites' pages do, and without the token; then as one should."""
    for name in ("here", "open"):
        (folder / name).mkdir()
    with served(folder / "here") as server:
        path = begin(server)
        asked = [("GET", "/"), ("GET", path), ("GET", "/openapi.json"), ("POST", API), ("DELETE", path)]
        changing = [("POST", API), ("DELETE", path), ("PUT", f"{path}/classes"), ("POST", f"{path}/supports")]
        statuses = [
            server.ask(*what, headers={"Host": host}).status == 400 for host, what in product(HOSTS, asked)
        ]
        statuses += [
            server.ask(*what, headers=one).status == 403 for one, what in product(ELSEWHERE, changing)
        ]
        own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
        let_in = [
            server.ask("GET", path).status == 200,
            server.ask("DELETE", path, headers=own).status == 204,
        ]
    with served(folder / "open", "--host", "0.0.0.0") as server:
        asked = [("GET", "/"), ("GET", "/?token=wrong"), ("GET", "/static/main.js"), ("POST", API)]
        statuses += [server.ask(*what, headers=one).status == 401 for one, what in product(FORGED, asked)]
        let_in.append(
            server.ask("POST", API, headers={"Authorization": f"Bearer {server.token}"}).status == 201
        )
        let_in.append(server.ask("GET", f"/?token={server.token}").status == 303)
    figure = f"{sum(statuses)}/{len(statuses)} refused; {sum(let_in)}/{len(let_in)} of one's own answered"
    return Found(figure, all(statuses) and all(let_in))


def policy(folder: Path) -> Found:
    """Look at the headers of all kinds of answers, and for scripts within what is served as a page."""
    with served(folder) as server:
        path = begin(server)
        page = server.ask("GET", "/")
        linked = re.findall(r'(?:src|href)="(static/[^"]+)"', page.content.decode())
        answers = [page, *(server.ask("GET", f"/{name}") for name in linked), *_other_answers(server, path)]
    guarded = sum(map(is_guarded, answers))
    pages = [one for one in answers if "html" in one.headers.get("content-type", "")]
    inline = [found[0] for one in pages for found in INLINE.finditer(one.content.decode())]
    figure = (
        f"{guarded}/{len(answers)} answers have one that allows nothing inline; {len(inline)} inline in pages"
    )
    return Found(figure, guarded == len(answers) and not inline and page in pages)


def _other_answers(server: Server, path: str) -> list[Answer]:
    """Ask for what is data, what is not there, and what is refused, in all ways that there are."""
    photograph = json.loads(
        server.post(f"{path}/supports", *labelled(b"<script>alert(1)</script>.png")).content
    )
    views = ("labels.png", "mask.png", "photo.jpg", "overlay.jpg", "probability.jpg")
    asked: list[tuple[Any, ...]] = [
        *(("GET", f"{path}/photographs/{photograph['id']}/{view}") for view in views),
        *(
            ("GET", where)
            for where in (path, f"{path}/results.zip", "/openapi.json", "/docs", "/static", "/static/no")
        ),
        *(
            ("GET", f"{API}/<script>"),
            ("POST", "/"),
            ("POST", f"{path}/segment"),
            ("PUT", f"{path}/classes", b"["),
        ),
        ("GET", "/", b"", {"Host": "evil.example"}),
        ("POST", API, b"", {"Origin": "null"}),
        ("PUT", f"{path}/classes", bytes(2**20)),
        ("POST", f"{path}/queries", b"", {"Content-Length": str(10**9)}),
    ]
    return [server.ask(*one) for one in asked]


def is_guarded(answer: Answer) -> bool:
    """Say whether a browser runs nothing, and takes nothing for something else."""
    rules = [rule.split() for rule in answer.headers.get("content-security-policy", "").split(";")]
    allowed = {name: set(values) for name, *values in filter(None, rules)}
    is_strict = allowed.get("default-src") == {"'none'"} and all(one <= HARMLESS for one in allowed.values())
    return is_strict and answer.headers.get("x-content-type-options") == "nosniff"


def expiry(folder: Path) -> Found:
    """Upload to two sessions, of which one is asked for now and then; look at the files that stay."""
    with served(folder, code=SHORT_LIVED) as server:
        forgotten, used = begin(server), begin(server)
        for path in (forgotten, used):
            server.post(f"{path}/supports", *labelled())
        server.post(f"{forgotten}/queries", query())
        statuses, until = set(), time.monotonic() + 2 * LIVES
        while time.monotonic() < until:
            statuses.add(server.ask("GET", used).status)
            time.sleep(0.2)
        kept = [path for path in server.temporary.rglob("*") if path.is_file()]
        gone = server.ask("GET", forgotten).status
        time.sleep(2 * LIVES)
        left = [path for path in server.temporary.rglob("*") if path.is_file()]
    figure = f"in {LIVES:.0f} s for 12 h: {gone}, and {len(left)} files left; a session in use lives on"
    if statuses != {200} or len(kept) != 2:
        figure = f"a session in use has {len(kept)} files, and answers {sorted(statuses)}"
    return Found(figure, gone == 404 and not left and statuses == {200} and len(kept) == 2)


def drawn_requests(folder: Path) -> Found:
    """Let schemathesis draw requests from the server's own description, about a session that there is."""
    if find_spec("schemathesis") is None:
        raise CannotRun("schemathesis is not installed")
    with served(folder) as server:
        path = begin(server)
        server.post(f"{path}/supports", *labelled())
        one = json.loads(server.post(f"{path}/queries", query()).content)["id"]
        settle(server, path)
        ids = {"path.session_id": path.rpartition("/")[2], "path.photograph_id": one}
        known = "[parameters]\n" + "".join(f'"{name}" = "{value}"\n' for name, value in ids.items())
        # What begins or ends sessions comes last, about none that there is: fifty would be too many.
        begins_or_ends = ("--include-path", API, "--include-method", "DELETE")
        reports = [
            _draw(server, folder, known, "--exclude-path", API, "--exclude-method", "DELETE"),
            _draw(server, folder, "", *begins_or_ends),
        ]
        works = server.ask("GET", path).status == 200
        num_tracebacks = server.num_tracebacks()
    cases = sum(report["test_cases"]["generated"] for report in reports)
    errors = sum(report["test_cases"]["with_failures"] + len(report["errors"]) for report in reports)
    operations = sum(report["operations"]["tested"] for report in reports)
    figure = (
        f"{cases:,} requests of {operations} operations: {errors} server errors, {num_tracebacks} tracebacks"
    )
    return Found(figure, not errors and not num_tracebacks and works and operations > 0)


def _draw(server: Server, folder: Path, config: str, *options: str) -> dict[str, Any]:
    """Run schemathesis with a configuration and options; give its report."""
    (folder / "schemathesis.toml").write_text(config)
    command = ["run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks", "not_a_server_error"]
    command += ["--phases", "coverage,fuzzing", "--generation-deterministic", "--max-examples", str(CASES)]
    command += ["--report", "json", "--report-json-path", "report.json", *options]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", *command],
        cwd=folder,
        capture_output=True,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr.decode(errors="replace") or done.stdout.decode(errors="replace"))
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


ROWS = (
    Row(
        "server-strangers",
        "server: wrong Host, other sites' requests, no token where others reach it",
        "all refused",
        strangers,
    ),
    Row(
        "server-policy", "server: content security policy", "in every answer; nothing inline in pages", policy
    ),
    Row("server-expiry", "server: uploads expire", "404, 0 files left", expiry),
    Row("server-schema", "server: schemathesis against its /openapi.json", "0 server errors", drawn_requests),
)
