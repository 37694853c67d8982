"""The page in a real browser: Debian's Chromium, driven by Playwright; `make test-browser`."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from make_data import iou
from PIL import Image, ImageDraw, ImageOps
from scipy import ndimage
from skimage import data, feature
from test_demo import BETWEEN, COINS

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
expect.set_options(timeout=30_000)  # milliseconds: a machine may be busy

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
WIDTH, HEIGHT = 384, 303  # of the coins
MARGIN = 8  # around an image that fits the canvas


@pytest.fixture(scope="module")
def address():
    """Serve the fastest model at the demo's size, in a process of its own."""
    options = ["serve", "--model", "prototype", "--port", "0", "--image-size", "641"]
    code = f"from kshot.cli.main import main; main({options})"
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    yield server.stdout.readline().split()[-1]
    server.terminate()
    server.wait(20)
    server.stdout.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser, address):
    """Open pages; any error in their console fails the test."""
    complaints, contexts = [], []

    def open_page(*, before=lambda page: None, **options):
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.on("dialog", lambda dialog: dialog.accept())
        before(page)
        page.goto(address)
        expect(page.locator("#examples button")).to_have_count(2)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # Expected errors: a bad file, and requests that a test blocks.
    faults = ("422 (Unprocessable", "net::ERR_FAILED")
    assert [line for line in complaints if not any(fault in line for fault in faults)] == []


@pytest.fixture
def page(new_page):
    return new_page()


@pytest.fixture(scope="module")
def coins(tmp_path_factory):
    """Write the coins and their mirror image; return the folder."""
    folder = tmp_path_factory.mktemp("images")
    image = Image.fromarray(data.coins())
    image.save(folder / "coins.png")
    ImageOps.mirror(image).save(folder / "mirrored.png")
    (folder / "broken.jpg").write_bytes(b"not an image")
    return folder


def all_coins():
    """Find the coins by their edges: a reference that no network had a part in."""
    filled = ndimage.binary_fill_holes(feature.canny(data.coins() / 255))
    labels, _ = ndimage.label(filled)
    return np.isin(labels, np.flatnonzero(np.bincount(labels.ravel()) > 200)[1:])


def on_canvas(page, x, y):
    """Convert coordinates in the coins image to the screen."""
    box = page.locator("#canvas").bounding_box()
    scale = min((box["width"] - MARGIN) / WIDTH, (box["height"] - MARGIN) / HEIGHT)
    left, top = box["width"] - WIDTH * scale, box["height"] - HEIGHT * scale
    return box["x"] + left / 2 + x * scale, box["y"] + top / 2 + y * scale


def drag(page, *points):
    page.mouse.move(*on_canvas(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*on_canvas(page, *point), steps=3)
    page.mouse.up()


def open_support(page, coins):
    page.set_input_files("#support-files", coins / "coins.png")
    expect(page.locator("#said")).to_have_text(f"coins.png, {WIDTH} x {HEIGHT} pixels")


def choose(page, name, value):
    page.locator(f"input[name={name}][value={value}]").check()


def wait_for_results(page, count):
    expect(page.locator("#progress")).to_have_text(f"{count} of {count} segmented.", timeout=60_000)


def api(page):
    return f"{page.url.split('#')[0]}api/sessions/{page.url.split('#')[1]}"


def state(page):
    return json.loads(page.request.get(api(page)).text())


def image_state(page, name, role):
    (found,) = [one for one in state(page)["images"] if (one["name"], one["role"]) == (name, role)]
    return found


def labels(page, name, role="support"):
    """Return the labels that the server has, drawn or predicted."""
    place = f"{api(page)}/images/{image_state(page, name, role)['id']}/labels.png"
    response = page.request.get(place)
    assert response.ok, response.text()
    return np.asarray(Image.open(io.BytesIO(response.body())))


def kept(page, text="Labels saved."):
    expect(page.locator("#said")).to_have_text(text)


def eventually(page, check, *, seconds=15):
    """Wait until the server has the expected state."""
    for _ in range(10 * seconds):
        if check():
            return
        page.wait_for_timeout(100)
    raise AssertionError("The expected state was not reached.")


def filled(draw):
    """Draw with Pillow what the page should have drawn."""
    image = Image.new("1", (WIDTH, HEIGHT))
    draw(ImageDraw.Draw(image))
    return np.asarray(image)


def test_one_painted_coin_finds_the_others_and_a_corrected_result_becomes_a_support(page, coins, tmp_path):
    open_support(page, coins)
    drag(page, (36, 50), (54, 50), (54, 60), (36, 60), (45, 54))  # the first coin, with the brush as it is
    kept(page)
    painted = labels(page, "coins.png")
    assert set(np.unique(painted)) == {0, 1}
    assert painted[55, 45]
    assert not painted[:, 75:].any()

    page.set_input_files("#query-files", [coins / "coins.png", coins / "broken.jpg", coins / "mirrored.png"])
    expect(page.locator("#problem-list li")).to_have_text(
        "broken.jpg: The file is not an image in a format that can be read (JPEG, PNG, WEBP, BMP, TIFF)."
    )
    wait_for_results(page, 2)
    before = labels(page, "mirrored.png", "query") > 0
    assert iou(before, all_coins()[:, ::-1]) > 0.5
    assert sum(before[y, WIDTH - 1 - x] for x, y in COINS) >= 20
    assert not any(before[y, WIDTH - 1 - x] for x, y in BETWEEN)

    # Correct the mirrored image: add a whole coin.
    card = page.locator("#cards li", has_text="mirrored.png")
    card.locator(".look").click()
    expect(page.locator("#correction")).to_be_visible()
    choose(page, "tool", "box")
    drag(page, (WIDTH - 375, 160), (WIDTH - 320, 214))
    page.get_by_role("button", name="Use as support").click()
    expect(page.locator("#corrected")).to_be_visible()
    expect(page.locator("#supports li")).to_have_count(2)
    wait_for_results(page, 2)
    expect(card.locator(".state")).to_have_text("corrected: used as support")
    corrected = labels(page, "mirrored.png", "query") > 0
    assert corrected[161:213, WIDTH - 374 : WIDTH - 321].all()
    found = labels(page, "coins.png", "query") > 0
    assert iou(found, all_coins()) > 0.5

    page.reload()
    expect(page.locator("#supports li")).to_have_count(2)
    wait_for_results(page, 2)
    expect(card.locator(".state")).to_have_text("corrected: used as support")
    kept(page, f"coins.png, {WIDTH} x {HEIGHT} pixels")  # the first support is open again

    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    download.value.save_as(tmp_path / "results.zip")
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        names = set(archive.namelist())
        for name, mask in (("coins_2", found), ("mirrored", corrected)):
            with archive.open(f"{name}_mask.png") as file:
                np.testing.assert_array_equal(np.asarray(Image.open(file)) > 0, mask)
        coco = json.loads(archive.read("instances.json"))
    stems = {"coins", "coins_2", "mirrored"}
    expected = {f"{stem}_{kind}.png" for stem in stems for kind in ("mask", "overlay")}
    assert names == expected | {f"labelme/{stem}.json" for stem in stems} | {"instances.json"}
    assert len(coco["images"]) == 3


def test_a_result_without_the_object_makes_its_image_a_negative(page, coins):
    open_support(page, coins)
    expect(page.locator("#nothing")).to_be_hidden()  # there is nothing yet that it could be a negative of
    drag(page, (36, 50), (54, 50), (54, 60), (36, 60), (45, 54))
    kept(page)
    page.set_input_files("#query-files", [coins / "coins.png", coins / "mirrored.png"])
    wait_for_results(page, 2)
    card = page.locator("#cards li", has_text="mirrored.png")
    card.locator(".look").click()
    page.get_by_role("button", name="Object not present").click()
    expect(page.locator("#mended")).to_have_text(
        "You marked this image as negative: the object is not present."
    )
    expect(page.locator("#nothing")).to_be_hidden()
    wait_for_results(page, 2)
    expect(card.locator(".state")).to_have_text("object not present")
    assert image_state(page, "mirrored.png", "query")["is_negative"]
    assert not labels(page, "mirrored.png", "query").any()
    page.get_by_role("button", name="Restore the prediction").click()
    wait_for_results(page, 2)
    expect(card.locator(".state")).to_have_text(re.compile(r"\d+ % confidence"))
    assert labels(page, "mirrored.png", "query").any()


def test_an_image_added_before_the_session_is_created_waits_for_it(new_page, coins):
    held = []
    page = new_page(before=lambda page: page.route("**/api/sessions", lambda route: held.append(route)))
    page.set_input_files("#support-files", coins / "coins.png")
    page.wait_for_timeout(300)
    assert page.locator("#supports li").count() == 0
    for route in held:
        route.continue_()
    expect(page.locator("#said")).to_have_text(f"coins.png, {WIDTH} x {HEIGHT} pixels")
    expect(page.locator("#notice")).to_be_hidden()


def test_the_page_recovers_when_the_server_responds_again(new_page, coins):
    page = new_page(before=lambda page: page.route("**/api/sessions", lambda route: route.abort()))
    expect(page.locator("#notice")).to_contain_text("The server does not respond.")
    page.unroute_all()
    expect(page.locator("#notice")).to_be_hidden()
    open_support(page, coins)


def test_polygon_and_box_fill_exactly_and_can_be_undone(page, coins):
    open_support(page, coins)
    choose(page, "tool", "polygon")
    corners = [(100, 40), (200, 60), (180, 200), (90, 150)]
    for corner in corners:
        page.mouse.click(*on_canvas(page, *corner))
    page.mouse.click(*on_canvas(page, *corners[0]))  # back at the first, which closes it
    kept(page)
    polygon = filled(lambda draw: draw.polygon(corners, fill=1))
    assert iou(labels(page, "coins.png") > 0, polygon) > 0.97
    choose(page, "tool", "box")
    choose(page, "mode", "erase")
    drag(page, (120, 80), (150, 130))
    hole = filled(lambda draw: draw.rectangle((121, 81, 148, 128), fill=1))
    eventually(page, lambda: not labels(page, "coins.png")[hole].any())
    assert iou(labels(page, "coins.png") > 0, polygon & ~hole) > 0.95
    page.get_by_role("button", name="Undo", exact=True).click()
    eventually(page, lambda: iou(labels(page, "coins.png") > 0, polygon) > 0.97)
    page.get_by_role("button", name="Undo", exact=True).click()
    kept(page, "Labels removed.")
    expect(page.locator("#supports .state")).to_have_text("not labelled yet")
    page.keyboard.press("Control+Shift+Z")
    kept(page)
    assert iou(labels(page, "coins.png") > 0, polygon) > 0.97


def test_everything_goes_by_keyboard(page):
    button = page.get_by_role("button", name="Coins")
    for _ in range(12):
        page.keyboard.press("Tab")
        if button.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.locator("#canvas")).to_be_focused()
    wait_for_results(page, 1)
    before = labels(page, "coins.jpg")
    revision = image_state(page, "coins.jpg", "query")["revision"]
    page.keyboard.press("p")
    expect(page.locator("input[value=polygon]")).to_be_checked()
    page.keyboard.press("b")
    for _ in range(5):
        page.keyboard.press("]")
    page.keyboard.press("ArrowDown")  # the cursor comes up in the middle
    page.keyboard.press("Enter")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    eventually(page, lambda: (labels(page, "coins.jpg") > 0).sum() > (before > 0).sum() + 1000)
    after = labels(page, "coins.jpg")
    assert after[HEIGHT // 2 : HEIGHT // 2 + 20, WIDTH // 2].any()
    eventually(page, lambda: image_state(page, "coins.jpg", "query")["revision"] != revision)
    page.keyboard.press("Control+z")
    eventually(page, lambda: np.array_equal(labels(page, "coins.jpg"), before))
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")  # gives the box up
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    np.testing.assert_array_equal(labels(page, "coins.jpg"), before)


def test_fingers_paint_and_pinch_on_a_small_screen(new_page, coins):
    page = new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    open_support(page, coins)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#canvas").scroll_into_view_if_needed()
    touch = page.context.new_cdp_session(page)

    def send(kind, *points):
        places = [on_canvas(page, *point) for point in points]
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    send("touchStart", (100, 57))
    send("touchMove", (110, 57))
    send("touchEnd")
    kept(page)
    painted = labels(page, "coins.png")
    assert painted[57, 100]
    assert painted[57, 110]
    assert painted.sum() < 3000
    send("touchStart", (150, 150))
    send("touchStart", (150, 150), (200, 150))
    send("touchMove", (100, 150), (250, 150))
    send("touchEnd")
    page.wait_for_timeout(900)
    np.testing.assert_array_equal(labels(page, "coins.png"), painted)  # a pinch paints nothing


def test_several_classes_are_painted_and_distinguished(page, coins):
    open_support(page, coins)
    name = page.get_by_label("Name of the class")
    name.fill("small coin")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="+ class").click()
    expect(name).to_have_count(2)
    name.nth(1).fill("large coin")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Paint large coin")).to_be_checked()
    choose(page, "tool", "box")
    drag(page, (335, 25), (362, 65))
    page.keyboard.press("1")
    drag(page, (88, 45), (112, 70))
    kept(page)
    eventually(page, lambda: set(np.unique(labels(page, "coins.png"))) == {0, 1, 2})
    drawn = labels(page, "coins.png")
    assert drawn[45, 345] == 2
    assert drawn[57, 100] == 1
    page.set_input_files("#query-files", coins / "mirrored.png")
    wait_for_results(page, 1)
    assert [one["name"] for one in state(page)["classes"]] == ["small coin", "large coin"]
    assert set(np.unique(labels(page, "mirrored.png", "query"))) == {0, 1, 2}
    page.get_by_role("button", name="Remove class small coin").click()
    expect(name).to_have_count(1)
    wait_for_results(page, 1)
    assert set(np.unique(labels(page, "mirrored.png", "query"))) == {0, 2}


def test_views_sorting_and_what_all_controls_are_called(page, coins):
    page.get_by_role("button", name="Coins").click()
    wait_for_results(page, 1)
    page.set_input_files("#query-files", coins / "mirrored.png")
    wait_for_results(page, 2)
    sure = {one["name"]: one["confidence"] for one in state(page)["images"] if one["confidence"]}
    page.get_by_label("Sort").select_option("unsure")
    expect(page.locator("#cards .name")).to_have_text(sorted(sure, key=sure.get))
    expect(page.locator("#cards .state").first).to_have_text(
        f"{round(100 * min(sure.values()))} % confidence"
    )
    for view in ("image", "probability", "overlay"):
        choose(page, "view", view)
        expect(page.locator(f"#cards img[src*='/{view}.jpg']")).to_have_count(2)
    expect(page.locator("#views").get_by_text("First pass")).to_be_hidden()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a, canvas")].filter((element) =>
            !(element.ariaLabel || element.textContent.trim() || element.labels?.[0]?.textContent.trim())
        ).map((element) => element.outerHTML)"""
    )
    assert nameless == []


def test_an_unsent_correction_can_be_taken_back_and_a_new_session_is_empty(page):
    page.get_by_role("button", name="Cat's eye").click()
    wait_for_results(page, 1)
    found = labels(page, "cat.jpg", "query")
    page.locator("#cards .look").click()
    expect(page.locator("#correction")).to_be_visible()
    page.mouse.click(*on_canvas(page, 300, 250))
    put_back = page.get_by_role("button", name="Undo my changes")
    put_back.click()
    expect(put_back).to_be_hidden()
    np.testing.assert_array_equal(labels(page, "cat.jpg", "query"), found)
    old = page.url
    page.get_by_role("button", name="New session").click()
    expect(page.locator("#examples")).to_be_visible()
    expect(page.locator("#cards li")).to_have_count(0)
    assert page.url != old
