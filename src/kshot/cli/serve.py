"""The verb that serves the page."""

from importlib.util import find_spec
from typing import Annotated

import typer

from kshot.errors import KshotError

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "pycocotools", "skimage")


def serve(
    port: Annotated[int, typer.Option(help="0 takes one that is free.", min=0, max=65535)] = 8000,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen at; others than this machine's own need a token, which is printed."
        ),
    ] = "127.0.0.1",
    model: Annotated[
        str | None,
        typer.Option(help="Model that ships with kshot, a model's folder, or OWNER/NAME on the hub."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels at which the network works; default the model's own.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps, …")] = "auto",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve a page in the browser to label and segment photographs, and a REST API."""
    if not all(find_spec(name) for name in PACKAGES):
        raise KshotError("The page needs packages that are not here. Run: pip install 'kshot[serve]'")
    from kshot.methods.hub import DEFAULT_MODEL
    from kshot.segmenter import Segmenter
    from kshot.web.run import run_server

    segmenter = Segmenter.from_pretrained(model or DEFAULT_MODEL, image_size=image_size, device=device)
    run_server(segmenter, host, port, open_browser)
