"""How a method computes: by torch in fp32, or faster, where one asks for it and the machine can.

With engine="openvino" OpenVINO reads images, all that `features` does. With precision="bf16" the 4-D encoder
and the decoders multiply numbers of 16 bits, and so does OpenVINO, but for a network's first layers. Sums,
GroupNorm's statistics and all else, softmaxes above all, stay in fp32. Both are for CPUs; docs/performance.md
says what they give.
"""

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from kshot.errors import ModelError
from kshot.methods.hsnet import HSNet
from kshot.methods.hub import AnyMethod
from kshot.methods.prototype import Prototype
from kshot.methods.two_pass import TwoPass
from kshot.models.kernels.openvino import OpenVinoReader, Read
from kshot.types import Method, Segmentation, Support

Engine = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16"]

BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")
"""What processors call theirs, as torch lists it."""


class Accelerated:
    """A method that reads with an engine, and matches in a precision.

    It shares the weights of the method that it is made of, which never changes.
    """

    def __init__(self, method: AnyMethod, engine: Engine, precision: Precision) -> None:
        self.matching = method if precision == "fp32" else match_in_bf16(method)
        reads: tuple[Read, Read] = method.features, method.support_features
        if engine == "openvino":
            reads = OpenVinoReader(reads[0], precision), OpenVinoReader(reads[1], precision)
        self._read, self._read_support = reads

    def features(self, images: Tensor) -> Any:
        """Read images (B, 3, H, W) in [0, 1] once, for use as a query or as a support."""
        return self._read(images)

    def support_features(self, images: Tensor) -> Any:
        """Read images (B, 3, H, W) in [0, 1] once, for use as a support only."""
        return self._read_support(images)

    def segment(
        self, query_features: Any, supports: Sequence[Support], size: tuple[int, int]
    ) -> Segmentation:
        """Segment the query with K supports; the answer is `size` = (height, width) large."""
        return cast(Method, self.matching).segment(query_features, supports, size)


def accelerate(method: AnyMethod, engine: str, precision: str, device: torch.device) -> Method | None:
    """Let a method compute with an engine, in a precision; None for "torch" and "fp32", its own.

    Raises ModelError for what does not exist, or for what this machine or device cannot do.
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
    if engine == "torch" and isinstance(method, Prototype):
        raise ModelError(
            "With the engine torch prototype has nothing to compute in bf16. Use the engine openvino too, or "
            "leave precision out."
        )
    if engine == "openvino" and find_spec("openvino") is None:
        raise ModelError("The engine openvino is not installed here. Run: pip install 'kshot[openvino]'")
    if precision == "bf16" and not multiplies_bf16():
        raise ModelError(
            "This processor has no units for bf16: it would be slower than fp32. Leave precision out."
        )
    return Accelerated(method, cast(Engine, engine), cast(Precision, precision))


def multiplies_bf16() -> bool:
    """Tell whether this processor has units for bf16; others compute it in fp32, more slowly than that."""
    return any(map(torch.cpu.get_capabilities().get, BF16_UNITS))


class InBf16(nn.Module):
    """Computes a module in bf16, and gives fp32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Any) -> Tensor:
        """Compute what the module computes."""
        with torch.autocast("cpu", torch.bfloat16):
            found: Tensor = self.module(inputs)
        return found.float()


def match_in_bf16(method: AnyMethod) -> AnyMethod:
    """Copy a method whose encoder and decoders then compute in bf16; the weights are shared."""
    shared = {id(tensor): tensor for tensor in (*method.parameters(), *method.buffers())}
    twin = copy.deepcopy(method, shared)
    matcher = twin.matcher if isinstance(twin, TwoPass) else twin
    if isinstance(matcher, HSNet):  # prototype has little to match, and none of it pays
        for name in ("encoder", "decoder", "joint_decoder"):
            if (part := getattr(matcher, name)) is not None:
                setattr(matcher, name, InBf16(part))
    return twin
