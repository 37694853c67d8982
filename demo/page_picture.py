"""Take the picture of the page that docs/server.md shows: `make page`.

    python demo/page_picture.py FILE [--width 1440] [--scheme dark]

Serves the default model, and does in Chromium what a user would, with scikit-image's photographs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from demo import photograph

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SERVE = "from kshot.cli.main import main; main(['serve', '--port', '0', '--image-size', '641'])"
HEIGHT = 900

# Parts of the coins, to have several photographs to find them in.
CROPS = {
    "top": (0, 0, 384, 160),
    "left": (0, 0, 200, 303),
    "right": (180, 0, 384, 303),
    "low": (0, 90, 384, 303),
}


def main(picture: Path, width: int, scheme: str) -> None:
    """Start a server, use its page, and write what it looks like."""
    server = subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().split()[-1]
        with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            page.goto(address)
            use(page, Path(folder))
            shot = Path(folder) / "page.png"
            page.screenshot(path=shot)
            with Image.open(shot) as taken:
                taken.convert("RGB").save(picture, quality=80, optimize=True)
    finally:
        server.terminate()
        server.wait()
    print(f"Look at {picture}")


def use(page: Page, folder: Path) -> None:
    """Try the coins, add parts of them, and look at the least sure ones first."""
    page.get_by_role("button", name="Coins").click()
    page.locator("#progress", has_text="1 of 1 segmented.").wait_for()
    coins = photograph("coins")
    for name, box in CROPS.items():
        coins.crop(box).save(folder / f"{name}.png")
    page.set_input_files("#query-files", [folder / f"{name}.png" for name in CROPS])
    page.get_by_label("Sort").select_option("unsure")
    count = len(CROPS) + 1
    page.locator("#progress", has_text=f"{count} of {count} segmented.").wait_for(timeout=120_000)
    page.wait_for_load_state("networkidle")
    page.mouse.move(*centre(page))
    page.wait_for_timeout(300)


def centre(page: Page) -> tuple[float, float]:
    """Give the middle of the canvas, where the brush shows its size."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    return box["x"] + box["width"] * 0.41, box["y"] + box["height"] * 0.19


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take a picture of the page.")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    arguments = parser.parse_args()
    main(arguments.picture, arguments.width, arguments.scheme)
