"""Describe a method without weights: how many parameters it has, and where its backbone is tapped."""

from typing import Any

import torch
from pydantic import ValidationError

from kshot.errors import ModelError, fault_of
from kshot.methods.config import ModelConfig
from kshot.methods.hub import build_method
from kshot.models.backbones import STRIDES, Backbone


def describe(
    method: str, backbone: str, backbones: str = "cls", num_base_classes: int = 15
) -> dict[str, Any]:
    """Count a method's parameters and list its taps; nothing is loaded or computed.

    Raises ModelError for a method, backbone or choice that does not exist.
    """
    try:
        config = ModelConfig(
            method=method.replace("_", "-"),
            backbone=backbone,
            backbones=backbones,  # type: ignore[arg-type]
            base_classes=tuple(f"class {n}" for n in range(num_base_classes)),
        )
    except ValidationError as error:
        raise ModelError(f"{fault_of(error).rstrip('.')}.") from error
    with torch.device("meta"):
        built = build_method(config)
        parameters = list(built.parameters())
    tapped = next(module for module in built.modules() if isinstance(module, Backbone))
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
    """Write a description for people."""
    lines = [f"{description['method']} with {description['backbone']}"]
    for kind in ("trainable", "frozen"):
        lines.append(f"{kind} parameters  {description[f'{kind}_parameters']:>12,}")
    lines.append("taps")
    lines += [f"  stride {tap['stride']:>2}  {tap['side']} of {tap['module']}" for tap in description["taps"]]
    return "\n".join(lines)
