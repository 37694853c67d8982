import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from kshot.web.auth import COOKIE, Guard

HERE = "http://127.0.0.1:8000"


def client(token=None):
    route = Route("/{path:path}", lambda request: PlainTextResponse("in"), methods=["GET", "POST", "DELETE"])
    return TestClient(Guard(Starlette(routes=[route]), token), base_url=HERE, follow_redirects=False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": HERE}, 200),
        ({"Origin": HERE, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://127.0.0.1:9000"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_other_sites_pages_may_change_nothing(method, headers, status):
    assert client().request(method, "/api/sessions", headers=headers).status_code == status


def test_all_answers_say_what_the_page_may_load():
    for answer in (
        client().get("/"),
        client("secret").get("/"),
        client().get("/x", headers={"Origin": "null"}),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


def test_the_token_opens_the_page_and_the_api():
    strange = client("secret")
    for path, headers in [
        ("/", {}),
        ("/static/main.js", {}),
        ("/?token=wrong", {}),
        ("/?token=secret&token=secret", {}),
        ("/api/sessions?token=secret", {}),
        ("/", {"Authorization": "Bearer wrong"}),
        ("/", {"Authorization": "Bearer sécret".encode()}),
        ("/", {"Cookie": f"{COOKIE}=wrong"}),
        ("/?token=%ff", {}),
    ]:
        assert strange.get(path, headers=headers).status_code == 401, path
    assert strange.get("/", headers={"Authorization": "Bearer secret"}).text == "in"
    welcome = strange.get("/?token=secret")
    assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
    assert "HttpOnly" in welcome.headers["set-cookie"]
    assert strange.get("/").text == "in"  # by its cookie
    assert strange.post("/", headers={"Origin": "http://evil.example"}).status_code == 403
