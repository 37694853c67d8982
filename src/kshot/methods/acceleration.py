"""Faster computation of a method on CPUs, if asked for: docs/performance.md has the gains.

engine="openvino" extracts features with OpenVINO. precision="bf16" multiplies with 16 bits in the 4-D
encoder, the decoders and OpenVINO, except for a network's first layers. Sums, GroupNorm's statistics and
everything else, such as softmaxes, stay in fp32.
"""

import copy
from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from kshot.errors import ModelError
from kshot.methods.base import Method
from kshot.models.kernels.openvino import OpenVinoEncoder

Engine = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16"]

BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names of bf16 units in torch's list of CPU capabilities."""


def accelerate(method: Method, engine: str, precision: str, device: torch.device) -> Method | None:
    """Return a method that shares the weights and computes faster; None for "torch" and "fp32".

    Raises ModelError for an unknown engine or precision, or one that this machine or device lacks.
    """
    for what, value, known in (("engine", engine, Engine), ("precision", precision, Precision)):
        if value not in get_args(known):
            raise ModelError(f"There is no {what} '{value}'. Use {' or '.join(get_args(known))}.")
    if (engine, precision) == ("torch", "fp32"):
        return None
    if device.type != "cpu":
        raise ModelError(
            f"engine='{engine}' with precision='{precision}' is for the CPU, but the device is '{device}'. "
            "Use device 'cpu' (--device cpu), or leave engine and precision out."
        )
    if engine == "torch" and not method.matching_modules:
        raise ModelError(
            "This method has nothing to compute in bf16 with the engine torch. Use the engine openvino too, "
            "or leave precision out."
        )
    if engine == "openvino" and find_spec("openvino") is None:
        raise ModelError("The engine openvino is not installed here. Run: pip install 'kshot[openvino]'")
    if precision == "bf16" and not multiplies_bf16():
        raise ModelError(
            "This processor has no units for bf16: it would be slower than fp32. Leave precision out."
        )
    twin = share(method)
    if precision == "bf16":
        match_in_bf16(twin)
    if engine == "openvino":
        twin.features = OpenVinoEncoder(method.features, precision)  # type: ignore[method-assign, arg-type]
        twin.support_features = OpenVinoEncoder(  # type: ignore[method-assign]
            method.support_features,
            precision,  # type: ignore[arg-type]
        )
    return twin


def multiplies_bf16() -> bool:
    """Return whether this processor has units for bf16; on others, bf16 is slower than fp32."""
    return any(map(torch.cpu.get_capabilities().get, BF16_UNITS))


class InBf16(nn.Module):
    """Computes a module in bf16, and returns fp32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Any) -> Tensor:
        """Compute what the module computes."""
        with torch.autocast("cpu", torch.bfloat16):
            found: Tensor = self.module(inputs)
        return found.float()


def share(method: Method) -> Method:
    """Return a copy of a method that shares its weights."""
    shared = {id(tensor): tensor for tensor in (*method.parameters(), *method.buffers())}
    return copy.deepcopy(method, shared)


def match_in_bf16(method: Method) -> None:
    """Make the modules that take most of the time in matching compute in bf16."""
    for name in method.matching_modules:
        place, _, last = name.rpartition(".")
        parent = method.get_submodule(place)
        if (part := getattr(parent, last)) is not None:
            setattr(parent, last, InBf16(part))
