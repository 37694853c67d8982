"""`kshot info`: describe a method without its weights."""

import json
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from kshot.cli.options import Json, report
from kshot.errors import ModelError, fault_of

EXAMPLES = ("kshot info two-pass --backbone resnet50", "kshot info hsnet --backbones both --json -")


def info(
    method: Annotated[str, typer.Argument(help="prototype, hsnet, two-pass, or another package's method.")],
    backbone: Annotated[str, typer.Option(help="Name of the backbone.")] = "efficientnet_lite0",
    backbones: Annotated[
        Literal["cls", "sem", "both"], typer.Option(help="Backbones whose features hsnet correlates.")
    ] = "cls",
    num_base_classes: Annotated[
        int, typer.Option(help="Classes of the base learner (15 in PASCAL-5i, 60 in COCO-20i).")
    ] = 15,
    json_file: Json = None,
) -> None:
    """Print a method's number of parameters, and where it takes features from its backbone."""
    description = describe(method, backbone, backbones, num_base_classes)
    report([to_text(description)], json.dumps(description, indent=2), json_file)


def describe(
    method: str,
    backbone: str,
    backbones: Literal["cls", "sem", "both"] = "cls",
    num_base_classes: int = 15,
) -> dict[str, Any]:
    """Return a method's number of parameters and its taps. Nothing is loaded or computed.

    Raises ModelError for a method or backbone that does not exist.
    """
    import torch

    from kshot.methods.config import ModelConfig
    from kshot.methods.saving import build_method
    from kshot.models.backbones import STRIDES, Backbone

    try:
        config = ModelConfig(
            method=method.replace("_", "-"),
            backbone=backbone,
            backbones=backbones,
            base_classes=tuple(f"class {n}" for n in range(num_base_classes)),
        )
    except ValidationError as error:
        raise ModelError(f"{fault_of(error).rstrip('.')}.") from error
    with torch.device("meta"):
        built = build_method(config)
        parameters = list(built.parameters())
    tapped = next((module for module in built.modules() if isinstance(module, Backbone)), None)
    if tapped is None:
        raise ModelError(f"The method {config.method} has no `Backbone`, so it has no taps to describe.")
    return {
        "method": config.method,
        "backbone": tapped.name,
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "frozen_parameters": sum(p.numel() for p in parameters if not p.requires_grad),
        "taps": [
            {"stride": stride, "module": tap.module, "side": tap.side}
            for stride, stage in zip(STRIDES, tapped.taps, strict=True)
            for tap in stage
        ],
    }


def to_text(description: dict[str, Any]) -> str:
    """Return a description as lines of text."""
    lines = [f"{description['method']} with {description['backbone']}"]
    for kind in ("trainable", "frozen"):
        lines.append(f"{kind} parameters  {description[f'{kind}_parameters']:>12,}")
    lines.append("taps")
    lines += [f"  stride {tap['stride']:>2}  {tap['side']} of {tap['module']}" for tap in description["taps"]]
    return "\n".join(lines)
