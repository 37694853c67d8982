"""The security of the server: hosts, origins, tokens, headers, expiry, generated requests."""

import json
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.robustness.rows import CannotRun, Outcome, Row
from benchmarks.robustness.server_process import (
    API,
    Headers,
    Response,
    Server,
    create_session,
    query_part,
    running_server,
    support_parts,
    wait_until_segmented,
)

HOSTS = (
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.5", "0.0.0.0"),
    *("[::2]", "127.0.0.1@evil.example", ""),
)
CROSS_ORIGIN: tuple[Headers, ...] = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
)
"""Headers that browsers send for pages of other sites."""

WRONG_CREDENTIALS: tuple[Headers, ...] = (
    {},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer wrong"},
    {"Cookie": "kshot_token="},
    {"Cookie": "kshot_token=wrong"},
    {"Host": "127.0.0.1", "X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=localhost"},
)

INLINE = re.compile(r"\s(style|srcdoc|on\w+)\s*=|<style|<script(?![^>]*\ssrc=)|javascript:", re.IGNORECASE)
"""What no page may contain; the policy forbids it as well."""

ALLOWED = {"'none'", "'self'", "blob:"}
"""What a policy may allow: nothing inline, and nothing from other sites."""

IDLE_SECONDS = 2.0
"""Expiry of an idle session, instead of 12 hours."""

SHORT_LIVED = f"""
import kshot.web.run as run, kshot.web.server as server
from kshot.cli.main import main
from kshot.web.limits import Limits
server.EXPIRY_CHECK_SECONDS = 0.2
run.make_app = lambda segmenter, token: server.make_app(segmenter, token, Limits(idle_seconds={IDLE_SECONDS}))
main()
"""

CASES = 25
"""Generated requests of each operation, besides those that cover its parameters."""


def unauthorized_requests(folder: Path) -> Outcome:
    """Send requests with a wrong host, from other sites and without the token; then valid ones."""
    for name in ("here", "open"):
        (folder / name).mkdir()
    with running_server(folder / "here") as server:
        path = create_session(server)
        requests = [("GET", "/"), ("GET", path), ("GET", "/openapi.json"), ("POST", API), ("DELETE", path)]
        changing = [("POST", API), ("DELETE", path), ("PUT", f"{path}/classes"), ("POST", f"{path}/supports")]
        statuses = [
            server.request(*request, headers={"Host": host}).status == 400
            for host, request in product(HOSTS, requests)
        ]
        statuses += [
            server.request(*request, headers=one).status == 403
            for one, request in product(CROSS_ORIGIN, changing)
        ]
        own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
        accepted = [
            server.request("GET", path).status == 200,
            server.request("DELETE", path, headers=own).status == 204,
        ]
    with running_server(folder / "open", "--host", "0.0.0.0") as server:
        requests = [("GET", "/"), ("GET", "/?token=wrong"), ("GET", "/static/main.js"), ("POST", API)]
        statuses += [
            server.request(*request, headers=one).status == 401
            for one, request in product(WRONG_CREDENTIALS, requests)
        ]
        accepted.append(
            server.request("POST", API, headers={"Authorization": f"Bearer {server.token}"}).status == 201
        )
        accepted.append(server.request("GET", f"/?token={server.token}").status == 303)
    figure = f"{sum(statuses)}/{len(statuses)} refused; {sum(accepted)}/{len(accepted)} valid ones accepted"
    return Outcome(figure, all(statuses) and all(accepted))


def content_security_policy(folder: Path) -> Outcome:
    """Check the headers of all kinds of responses, and the pages for inline scripts."""
    with running_server(folder) as server:
        path = create_session(server)
        page = server.request("GET", "/")
        linked = re.findall(r'(?:src|href)="(static/[^"]+)"', page.content.decode())
        responses = [
            page,
            *(server.request("GET", f"/{name}") for name in linked),
            *_other_responses(server, path),
        ]
    with_policy = sum(map(has_strict_policy, responses))
    pages = [one for one in responses if "html" in one.headers.get("content-type", "")]
    inline = [found[0] for one in pages for found in INLINE.finditer(one.content.decode())]
    figure = f"{with_policy}/{len(responses)} responses have a strict policy; {len(inline)} inline in pages"
    return Outcome(figure, with_policy == len(responses) and not inline and page in pages)


def _other_responses(server: Server, path: str) -> list[Response]:
    """Request data, missing resources and everything that is refused."""
    image = json.loads(
        server.post_form(f"{path}/supports", *support_parts(b"<script>alert(1)</script>.png")).content
    )
    views = ("labels.png", "mask.png", "image.jpg", "overlay.jpg", "probability.jpg")
    requests: list[tuple[Any, ...]] = [
        *(("GET", f"{path}/images/{image['id']}/{view}") for view in views),
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
    return [server.request(*one) for one in requests]


def has_strict_policy(response: Response) -> bool:
    """Return whether a response forbids inline code, other sites and content sniffing."""
    rules = [rule.split() for rule in response.headers.get("content-security-policy", "").split(";")]
    allowed = {name: set(values) for name, *values in filter(None, rules)}
    is_strict = allowed.get("default-src") == {"'none'"} and all(one <= ALLOWED for one in allowed.values())
    return is_strict and response.headers.get("x-content-type-options") == "nosniff"


def expiry(folder: Path) -> Outcome:
    """Upload to two sessions and keep only one in use; check the files of both."""
    with running_server(folder, code=SHORT_LIVED) as server:
        idle, used = create_session(server), create_session(server)
        for path in (idle, used):
            server.post_form(f"{path}/supports", *support_parts())
        server.post_form(f"{idle}/queries", query_part())
        statuses, until = set(), time.monotonic() + 2 * IDLE_SECONDS
        while time.monotonic() < until:
            statuses.add(server.request("GET", used).status)
            time.sleep(0.2)
        kept = [path for path in server.temporary.rglob("*") if path.is_file()]
        status = server.request("GET", idle).status
        time.sleep(2 * IDLE_SECONDS)
        left = [path for path in server.temporary.rglob("*") if path.is_file()]
    figure = f"{status} and {len(left)} files left after {IDLE_SECONDS:.0f} s; a session in use stays"
    if statuses != {200} or len(kept) != 2:
        figure = f"a session in use has {len(kept)} files and statuses {sorted(statuses)}"
    return Outcome(figure, status == 404 and not left and statuses == {200} and len(kept) == 2)


def generated_requests(folder: Path) -> Outcome:
    """Generate requests from the server's OpenAPI description with schemathesis, for an existing session."""
    if find_spec("schemathesis") is None:
        raise CannotRun("schemathesis is not installed")
    with running_server(folder) as server:
        path = create_session(server)
        server.post_form(f"{path}/supports", *support_parts())
        one = json.loads(server.post_form(f"{path}/queries", query_part()).content)["id"]
        wait_until_segmented(server, path)
        ids = {"path.session_id": path.rpartition("/")[2], "path.image_id": one}
        known = "[parameters]\n" + "".join(f'"{name}" = "{value}"\n' for name, value in ids.items())
        # Requests that create or delete sessions come last and use unknown ids, as 50 sessions are the limit.
        begins_or_ends = ("--include-path", API, "--include-method", "DELETE")
        reports = [
            _generate(server, folder, known, "--exclude-path", API, "--exclude-method", "DELETE"),
            _generate(server, folder, "", *begins_or_ends),
        ]
        works = server.request("GET", path).status == 200
        num_tracebacks = server.num_tracebacks()
    cases = sum(report["test_cases"]["generated"] for report in reports)
    errors = sum(report["test_cases"]["with_failures"] + len(report["errors"]) for report in reports)
    operations = sum(report["operations"]["tested"] for report in reports)
    figure = (
        f"{cases:,} requests of {operations} operations: {errors} server errors, {num_tracebacks} tracebacks"
    )
    return Outcome(figure, not errors and not num_tracebacks and works and operations > 0)


def _generate(server: Server, folder: Path, config: str, *options: str) -> dict[str, Any]:
    """Run schemathesis with a configuration and options; return its report."""
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
        "server-access",
        "server: wrong Host, cross-origin requests, no token on a network address",
        "all refused",
        unauthorized_requests,
    ),
    Row(
        "server-policy",
        "server: content security policy",
        "in every response; nothing inline in pages",
        content_security_policy,
    ),
    Row("server-expiry", "server: uploads expire", "404, 0 files left", expiry),
    Row(
        "server-schema",
        "server: schemathesis against its /openapi.json",
        "0 server errors",
        generated_requests,
    ),
)
