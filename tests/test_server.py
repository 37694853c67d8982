import asyncio
import json
import re
import time
import zipfile
from io import BytesIO

import numpy as np
import pytest
from fastapi import HTTPException, Request
from make_data import colour_segmenter, iou, scene, tiny_method, two_things
from PIL import Image
from starlette.testclient import TestClient
from test_uploads import encoded

from kshot.io.overlays import label_image, mask_image
from kshot.segmenter import MAX_CLASSES
from kshot.web.limits import Limits
from kshot.web.routes import MAX_BYTES_IN_MEMORY, MAX_CLASSES_BYTES, put_labels
from kshot.web.server import STATIC, make_app

HERE = "http://127.0.0.1:8000"
PHOTO, MASK = scene()
SUPPORT = {"image": ("cup.png", encoded(PHOTO)), "mask": ("m.png", encoded(mask_image(MASK)))}


def served(**options):
    return TestClient(make_app(colour_segmenter(), **options), base_url=HERE)


@pytest.fixture
def client():
    with served() as client:
        yield client


@pytest.fixture
def path(client):
    return f"/api/sessions/{client.post('/api/sessions').json()['id']}"


def pixels(response):
    assert response.status_code == 200, response.text
    with Image.open(BytesIO(response.content)) as image:
        return np.asarray(image)


def query(left=60):
    image, ground_truth = scene(left=left, seed=left)
    return {"image": (f"{left}.png", encoded(image))}, ground_truth


def settled(client, path):
    deadline = time.monotonic() + 10
    while True:
        state = client.get(path).json()
        if not any(one["status"] in ("queued", "running") for one in state["images"]):
            return state
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_three_requests_segment_an_image(client, path):
    assert client.post(f"{path}/supports", files=SUPPORT).status_code == 201
    files, ground_truth = query()
    response = client.post(f"{path}/segment", files=files)
    found = pixels(response)
    assert response.headers["content-type"] == "image/png"
    assert set(np.unique(found)) == {0, 255}
    assert iou(found > 0, ground_truth) > 0.8
    assert 0 < float(response.headers["x-confidence"]) <= 1
    assert [one["name"] for one in client.get(path).json()["images"]] == ["cup.png"]  # it is deleted


def test_a_corrected_query_segments_all_others_again(client, path):
    files, ground_truth = query(60)
    first = client.post(f"{path}/queries", files=files).json()
    assert first["status"] == "waiting"
    support = client.post(f"{path}/supports", files=SUPPORT).json()
    assert (support["status"], support["is_labelled"]) == ("labelled", True)
    client.post(f"{path}/queries", files=query(30)[0])
    _, one, other = settled_images(client, path)
    assert (one["status"], one["maps"], one["is_stale"]) == ("done", ["probability"], False)
    assert 0 < one["confidence"] <= 1
    place = f"{path}/images/{one['id']}"
    assert iou(pixels(client.get(f"{place}/labels.png")) == 1, ground_truth) > 0.8
    drawn = encoded(mask_image(~ground_truth))
    corrected = client.put(f"{place}/labels.png", content=drawn).json()
    assert (corrected["status"], corrected["role"]) == ("labelled", "query")
    np.testing.assert_array_equal(pixels(client.get(f"{place}/mask.png")) > 0, ~ground_truth)
    _, one, again = settled_images(client, path)
    assert again["status"] == "done"
    assert again["revision"] != other["revision"]
    assert client.delete(f"{place}/labels.png").status_code == 200
    _, one, _ = settled_images(client, path)
    assert one["status"] == "done"


def test_an_empty_mask_makes_an_image_negative_until_it_is_deleted():
    model = colour_segmenter()
    model.method = tiny_method("prototype")
    with TestClient(make_app(model), base_url=HERE) as client:
        path = f"/api/sessions/{client.post('/api/sessions').json()['id']}"
        assert client.get(path).json()["supports_negatives"]
        client.post(f"{path}/supports", files=SUPPORT)
        for left in (60, 30):
            client.post(f"{path}/queries", files=query(left)[0])
        _, one, other = settled_images(client, path)
        labels = f"{path}/images/{one['id']}/labels.png"
        before = pixels(client.get(labels))
        empty = np.zeros_like(MASK)
        negative = client.put(labels, content=encoded(mask_image(empty))).json()
        assert (negative["status"], negative["is_labelled"], negative["is_negative"]) == (
            "labelled",
            True,
            True,
        )
        _, _, again = settled_images(client, path)
        found = pixels(client.get(f"{path}/images/{other['id']}/labels.png"))
        fitted = model.fit([PHOTO, scene(left=60, seed=60)[0]], [MASK, empty])
        np.testing.assert_array_equal(found == 1, fitted.predict(scene(left=30, seed=30)[0]))
        assert again["revision"] != other["revision"]
        assert not pixels(client.get(labels)).any()
        restored = client.delete(labels).json()
        assert (restored["is_labelled"], restored["is_negative"]) == (False, False)
        settled(client, path)
        np.testing.assert_array_equal(pixels(client.get(labels)), before)
        client.post(f"{path}/supports", files={**SUPPORT, "mask": ("m.png", encoded(mask_image(empty)))})
        client.delete(f"{path}/images/{client.get(path).json()['images'][0]['id']}")
        # Settled first: a prediction with the previous supports may still be running.
        states = [one["status"] for one in settled(client, path)["images"]]
        assert states == ["waiting", "waiting", "labelled"]  # a negative image alone is not enough


def test_a_model_without_negatives_refuses_an_empty_mask(client, path):
    assert not client.get(path).json()["supports_negatives"]
    empty = {**SUPPORT, "mask": ("m.png", encoded(mask_image(np.zeros_like(MASK))))}
    response = client.post(f"{path}/supports", files=empty)
    assert response.status_code == 422
    assert "empty" in response.json()["detail"]
    assert client.get(path).json()["images"] == []


def settled_images(client, path):
    images = settled(client, path)["images"]
    return [next(p for p in images if p["name"] == name) for name in ("cup.png", "60.png", "30.png")]


def test_stale_results_are_marked(client, path):
    support = client.post(f"{path}/supports", files=SUPPORT).json()
    client.post(f"{path}/queries", files=query()[0])
    settled(client, path)
    client.delete(f"{path}/images/{support['id']}")
    (state,) = client.get(path).json()["images"]
    assert (state["is_stale"], state["status"]) == (True, "waiting")


def test_several_classes(client, path):
    classes = [
        {"value": 1, "name": "disc", "colour": "#ff0000"},
        {"value": 2, "name": "square", "colour": "#0000ff"},
    ]
    assert client.put(f"{path}/classes", json=classes).json()["classes"] == classes
    image, labels = two_things()
    files = {"image": ("t.png", encoded(image)), "mask": ("l.png", encoded(label_image(labels)))}
    assert client.post(f"{path}/supports", files=files).status_code == 201
    query_image, ground_truth = two_things(red=100, blue=20)
    found = pixels(client.post(f"{path}/segment", files={"image": ("q.png", encoded(query_image))}))
    assert iou(found == 1, ground_truth == 1) > 0.7
    assert iou(found == 2, ground_truth == 2) > 0.7
    for bad in ([], [{"value": 0, "name": "a", "colour": "#ffffff"}], [{**classes[0], "colour": "red"}]):
        assert client.put(f"{path}/classes", json=bad).status_code == 422


@pytest.mark.parametrize("view", ["image", "overlay", "probability"])
def test_views_fit_the_size_that_is_asked_for(client, path, view):
    client.post(f"{path}/supports", files=SUPPORT)
    one = client.post(f"{path}/queries", files=query()[0]).json()
    settled(client, path)
    place = f"{path}/images/{one['id']}/{view}.jpg"
    assert pixels(client.get(place)).shape[:2] == (90, 120)
    small = client.get(f"{place}?side=60&value=1")
    assert pixels(small).shape[:2] == (45, 60)
    assert "max-age" in small.headers["cache-control"]


def test_a_bad_file_is_refused_with_its_reason_and_leaves_nothing(client, path):
    for where in ("supports", "queries"):
        response = client.post(f"{path}/{where}", files={"image": ("notes.txt", b"not an image")})
        assert response.status_code == 422
        assert "not an image in a format that can be read (JPEG" in response.json()["detail"]
    wrong = {**SUPPORT, "mask": ("m.png", encoded(Image.new("L", (5, 5), 1)))}
    response = client.post(f"{path}/supports", files=wrong)
    assert response.status_code == 422
    assert "its image is 120 x 90" in response.json()["detail"]
    assert client.get(path).json()["images"] == []


def test_missing_resources_are_404_and_premature_requests_explain_themselves(client, path):
    nowhere = "/api/sessions/none"
    assert client.get(nowhere).status_code == 404
    assert "Start a new one" in client.get(nowhere).json()["detail"]
    assert client.get(f"{path}/images/none/labels.png").status_code == 404
    assert client.post(f"{path}/segment", files=query()[0]).status_code == 409
    one = client.post(f"{path}/queries", files=query()[0]).json()
    assert client.get(f"{path}/images/{one['id']}/overlay.jpg").status_code == 422
    assert client.get(f"{path}/images/{one['id']}/anything.jpg").status_code == 422
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404


def test_results_come_in_one_zip_whose_temporary_file_is_deleted(client, path, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client.post(f"{path}/supports", files=SUPPORT)
    client.post(f"{path}/queries", files=query()[0])
    settled(client, path)
    response = client.get(f"{path}/results.zip")
    with zipfile.ZipFile(BytesIO(response.content)) as archive:
        assert {"cup_mask.png", "60_overlay.png", "instances.json"} <= set(archive.namelist())
    assert not list(tmp_path.glob("*.zip"))


def test_too_large_an_upload_is_refused():
    with served(limits=Limits(upload_bytes=2000)) as client:
        path = f"/api/sessions/{client.post('/api/sessions').json()['id']}"
        kind = {"content-type": "multipart/form-data; boundary=x"}
        for content, headers in [
            (bytes(10**5), {}),
            (iter([bytes(1000)] * 9), {"transfer-encoding": "chunked"}),
        ]:
            response = client.post(f"{path}/queries", content=content, headers={**kind, **headers})
            assert response.status_code == 413
        one = client.post(
            f"{path}/queries", files={"image": ("p.png", encoded(Image.new("RGB", (9, 9))))}
        ).json()
        drawn = client.put(f"{path}/images/{one['id']}/labels.png", content=bytes(10**5))
        assert drawn.status_code == 413


@pytest.mark.parametrize(
    "content",
    [
        b'[{"value": 1, "name": "\\ud800", "colour": "#ffffff"}]',  # cannot be encoded as UTF-8
        b'[{"value": NaN, "name": "a", "colour": "#ffffff"}]',
        b'{"\\ud800": 1e999}',
        b"[" + b"0, " * 10_000 + b"0]",
    ],
)
def test_invalid_values_are_not_repeated_in_the_error(client, path, content):
    response = client.put(f"{path}/classes", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    (error,) = response.json()["detail"]
    assert set(error) == {"type", "loc", "msg"}


def test_what_stays_in_memory_is_bounded(client, path):
    response = client.post(f"{path}/queries", files=query()[0], data={"text": "a" * 2000})
    assert response.status_code == 400
    response = client.post(f"{path}/queries", files=[("image", b"a")] * 3)
    assert response.status_code == 400
    one = client.post(f"{path}/queries", files=query()[0]).json()
    large = encoded(mask_image(MASK)) + bytes(2 * MAX_BYTES_IN_MEMORY)  # ignored: after the end of the PNG
    drawn = client.put(f"{path}/images/{one['id']}/labels.png", content=large)
    assert drawn.status_code == 200
    longest = [
        {"value": 1 + n, "name": f"{n:04}" + 56 * "😀", "colour": "#ffffff"} for n in range(MAX_CLASSES)
    ]
    classes, json_kind = f"{path}/classes", {"Content-Type": "application/json"}
    assert client.put(classes, content=json.dumps(longest), headers=json_kind).status_code == 200
    assert client.put(classes, content=bytes(MAX_CLASSES_BYTES + 1), headers=json_kind).status_code == 413


def test_an_incomplete_mask_is_a_client_error():
    async def receive():
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "PUT", "headers": []}, receive)
    with pytest.raises(HTTPException, match="incomplete"):
        asyncio.run(put_labels(request, None, None, None))


def test_limits_return_413_or_503_with_retry_after():
    with served(limits=Limits(pixels=10_000, images=1, sessions=1, queue=0)) as client:
        path = f"/api/sessions/{client.post('/api/sessions').json()['id']}"
        assert "at most 10,000" in client.post(f"{path}/supports", files=SUPPORT).json()["detail"]
        for where in ("/api/sessions", f"{path}/queries"):
            response = client.post(where, files=query()[0])
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
    with served(limits=Limits(images=1)) as client:
        path = f"/api/sessions/{client.post('/api/sessions').json()['id']}"
        assert client.post(f"{path}/supports", files=SUPPORT).status_code == 201
        assert client.post(f"{path}/supports", files=SUPPORT).status_code == 413


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:8000", ""])
def test_wrong_hosts_are_refused(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"Host": "evil.example"}, 400),
        ("/api/sessions", {"Origin": "null"}, 403),
        ("/api/sessions/none/queries", {"Content-Length": str(10**9)}, 413),
    ],
)
def test_refusals_have_a_content_security_policy(client, path, headers, status):
    response = client.post(path, headers=headers)
    assert response.status_code == status
    assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:1", "[::1]:8000", "LOCALHOST"])
def test_loopback_hosts_are_accepted(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_a_token_is_required_under_any_host_name():
    with served(token="secret") as client:
        assert client.get("/", headers={"Host": "my-machine:8000"}).status_code == 401
        assert client.post("/api/sessions").status_code == 401
        assert client.get("/openapi.json").status_code == 401
        assert client.post("/api/sessions", headers={"Authorization": "Bearer secret"}).status_code == 201


def test_the_api_describes_itself_and_loads_nothing_from_elsewhere(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert "/api/sessions/{session_id}/segment" in paths
    assert all(verb["description"] for verbs in paths.values() for verb in verbs.values())
    assert client.get("/docs").status_code == 404


def test_the_page_is_whole_and_has_nothing_inline_or_from_elsewhere(client):
    page = client.get("/").text
    assert not re.search(r"style=|\son\w+=|<style|<script(?![^>]*src)", page)
    named = {f"/{name}" for name in re.findall(r'(?:src|href)="([^"#]+)"', page)}
    for path in STATIC.rglob("*.js"):
        text = path.read_text()
        assert client.get(f"/static/{path.name}").headers["content-type"].startswith("text/javascript")
        named |= {f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}
        assert "innerHTML" not in text
    for path in STATIC.rglob("*"):
        if path.is_file() and path.suffix in (".js", ".css", ".html"):
            assert not re.search(r"(https?:)?//[a-z]+\.", path.read_text()), path
    for name in named:
        assert client.get(name).status_code == 200, name


def test_the_examples_are_small_and_their_masks_fit(client, path):
    examples = sorted((STATIC / "examples").iterdir())
    assert sum(example.stat().st_size for example in examples) < 200_000
    for image_path in [example for example in examples if example.suffix == ".jpg"]:
        mask = image_path.with_name(f"{image_path.stem}_mask.png")
        files = {"image": (image_path.name, image_path.read_bytes()), "mask": (mask.name, mask.read_bytes())}
        assert client.post(f"{path}/supports", files=files).status_code == 201


def luminance(colour):
    levels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(scheme):
    text = (STATIC / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", text, flags=re.S)
    assert len(blocks) == 2
    colours = {}
    for block in blocks[: 1 if scheme == "light" else 2]:
        for name, value in re.findall(r"--([\w-]+): (#\w+);", block):
            colours[name] = value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])
    for ink in ("ink", "soft", "accent"):
        for ground in ("paper", "panel", "wash"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    for ground in ("panel", "bad-wash"):
        assert contrast(colours["bad"], colours[ground]) >= 4.5
    assert contrast(colours["edge"], colours["panel"]) >= 3  # of controls


def test_state_is_json_that_names_no_path_of_the_server(client, path):
    client.post(f"{path}/supports", files=SUPPORT)
    assert "/tmp" not in json.dumps(client.get(path).json())
