import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from kshot.web.auth import COOKIE, AuthMiddleware

HERE = "http://127.0.0.1:8000"


def client(token=None):
    route = Route("/{path:path}", lambda request: PlainTextResponse("in"), methods=["GET", "POST", "DELETE"])
    return TestClient(AuthMiddleware(Starlette(routes=[route]), token), base_url=HERE, follow_redirects=False)


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
def test_cross_origin_requests_are_refused(method, headers, status):
    assert client().request(method, "/api/sessions", headers=headers).status_code == status


def test_all_responses_have_security_headers():
    for response in (
        client().get("/"),
        client("secret").get("/"),
        client().get("/x", headers={"Origin": "null"}),
    ):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


def test_the_token_opens_the_page_and_the_api():
    remote = client("secret")
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
        assert remote.get(path, headers=headers).status_code == 401, path
    assert remote.get("/", headers={"Authorization": "Bearer secret"}).text == "in"
    redirect = remote.get("/?token=secret")
    assert (redirect.status_code, redirect.headers["location"]) == (303, "/")
    assert "HttpOnly" in redirect.headers["set-cookie"]
    assert remote.get("/").text == "in"  # with the cookie
    assert remote.post("/", headers={"Origin": "http://evil.example"}).status_code == 403
