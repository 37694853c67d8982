"""`kshot export`: write a model for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from kshot.cli.options import BackboneName, BackboneWeights, ImageSize, load_segmenter
from kshot.errors import KshotError

EXAMPLES = (
    "kshot export prototype --out prototype.onnx",
    "kshot export two-pass --out two-pass.onnx --image-size 257",
)


def export(
    model: Annotated[
        str, typer.Argument(help="Model that ships with kshot, a model's folder, or OWNER/NAME on the hub.")
    ],
    out: Annotated[Path, typer.Option(help="File to write.", metavar="FILE.onnx")],
    file_format: Annotated[str, typer.Option("--format", help="onnx, or that of another package.")] = "onnx",
    image_size: ImageSize = None,
    backbone: BackboneName = None,
    backbone_weights: BackboneWeights = None,
) -> None:
    """Write a model as one ONNX graph that runs without kshot and torch, and check it; takes minutes.

    Exit status: 0 written, 2 not written, also if the graph differs from torch by more than 1e-4.
    """
    from kshot.export import EXPORTERS

    if file_format not in EXPORTERS:
        raise KshotError(f"--format is '{file_format}'; use one of {', '.join(EXPORTERS)}.")
    segmenter = load_segmenter(
        model, image_size=image_size, backbone=backbone, backbone_weights=backbone_weights, device="cpu"
    )
    name = Path(model).resolve().name if Path(model).is_dir() else model
    difference = EXPORTERS[file_format](segmenter, name, out)
    typer.echo(f"{out} ({file_format}) differs from torch by {difference:.1e} at most, on one example.")
