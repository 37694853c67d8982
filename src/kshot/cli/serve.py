"""`kshot serve`: the page and the REST API."""

from importlib.util import find_spec
from typing import Annotated

import typer

from kshot.cli.options import Device, ImageSize, Model, load_segmenter
from kshot.errors import KshotError
from kshot.methods.hub import DEFAULT_MODEL

EXAMPLES = ("kshot serve --open", "kshot serve --model two-pass --host 0.0.0.0 --port 8080")

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "pycocotools", "skimage")


def serve(
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at. Another than this machine's own needs the printed token."),
    ] = "127.0.0.1",
    model: Model = DEFAULT_MODEL,
    image_size: ImageSize = None,
    device: Device = "auto",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve a page to label and segment images in the browser, and a REST API."""
    if not all(find_spec(name) for name in PACKAGES):
        raise KshotError("The page needs packages that are not installed. Run: pip install 'kshot[serve]'")
    segmenter = load_segmenter(model, image_size=image_size, device=device)
    from kshot.web.run import run_server

    run_server(segmenter, host, port, open_browser)
