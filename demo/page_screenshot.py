"""Take the screenshot of the page in docs/server.md: `make page`.

    python demo/page_screenshot.py FILE [--width 1440] [--scheme dark]

Serves the default model, and uses the page in Chromium with scikit-image's sample images.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from demo import sample_image

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SERVE = "from kshot.cli.main import main; main(['serve', '--port', '0', '--image-size', '641'])"
HEIGHT = 900

# Crops of the coins, to have several images to segment.
CROPS = {
    "top": (0, 0, 384, 160),
    "left": (0, 0, 200, 303),
    "right": (180, 0, 384, 303),
    "low": (0, 90, 384, 303),
}


def main(out: Path, width: int, scheme: str) -> None:
    """Start a server, use its page, and write a screenshot."""
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
                taken.convert("RGB").save(out, quality=80, optimize=True)
    finally:
        server.terminate()
        server.wait()
    print(f"Wrote {out}")


def use(page: Page, folder: Path) -> None:
    """Segment the coins and crops of them, and sort by confidence."""
    page.get_by_role("button", name="Coins").click()
    page.locator("#progress", has_text="1 of 1 segmented.").wait_for()
    coins = sample_image("coins")
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
    """Return a point on the canvas at which the brush shows its size."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    return box["x"] + box["width"] * 0.41, box["y"] + box["height"] * 0.19


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take a screenshot of the page.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    arguments = parser.parse_args()
    main(arguments.out, arguments.width, arguments.scheme)
