"""OpenVINO as the engine that encodes images: torch functions as graphs of its CPU plugin.

A graph is compiled in memory, once for each shape of images; no file is written and nothing is sent.
"""

import sys
import warnings
from collections.abc import Callable
from threading import Lock
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from kshot.errors import ModelError, reason_of

TELEMETRY = "openvino_telemetry"

Encode = Callable[[Tensor], Any]
"""A function from images to features: nested tuples of tensors."""


FINE_STRIDE = 5
"""Stride below which a map counts as fine, between the strides 4 and 8. Fine maps stay in fp32 under bf16:
they cost little and lose the most precision."""


class CompiledGraph(NamedTuple):
    """Compiled parts that run one after another, and the nesting of the last one's outputs.

    indices: which leaves of `structure` the outputs are; the other leaves are None.
    """

    parts: tuple[Any, ...]
    structure: pytree.TreeSpec
    indices: tuple[int, ...]

    def run(self, images: Tensor) -> Any:
        """Return the features of images."""
        arrays: Any = [images.contiguous().numpy()]
        for part in self.parts:
            # A new request for each call, because several threads may use one graph.
            outputs = part.create_infer_request().infer(arrays)
            arrays = [outputs[index] for index in range(len(outputs))]
        leaves: list[Tensor | None] = [None] * self.structure.num_leaves
        for index, array in zip(self.indices, arrays, strict=True):
            leaves[index] = torch.from_numpy(array)
        return pytree.tree_unflatten(leaves, self.structure)


class OpenVinoEncoder:
    """Computes a torch function of images (B, 3, H, W) with OpenVINO, with as many threads as torch has."""

    def __init__(self, encode: Encode, precision: Literal["fp32", "bf16"]) -> None:
        self._encode, self._precision = encode, precision
        self._graphs: dict[tuple[int, ...], CompiledGraph] = {}
        self._lock = Lock()

    def __call__(self, images: Tensor) -> Any:
        """Return what the torch function returns. Raises ModelError if OpenVINO cannot run it."""
        return self._graph(images.shape).run(images)

    def _graph(self, shape: torch.Size) -> CompiledGraph:
        key = (*shape, torch.get_num_threads())
        with self._lock:
            if key not in self._graphs:
                try:
                    self._graphs[key] = compile_graph(self._encode, shape, self._precision)
                except Exception as error:  # its converter has no error class of its own
                    raise ModelError(
                        f"OpenVINO cannot run this model ({reason_of(error)}). Use the engine torch."
                    ) from error
            return self._graphs[key]


def compile_graph(encode: Encode, shape: torch.Size, precision: Literal["fp32", "bf16"]) -> CompiledGraph:
    """Convert a function of images of one shape, and compile it."""
    openvino, make_decoder = import_openvino()
    structures: list[tuple[pytree.TreeSpec, tuple[int, ...]]] = []

    def encode_flat(images: Tensor) -> tuple[Tensor, ...]:
        leaves, structure = pytree.tree_flatten(encode(images))
        tensors = {index: leaf for index, leaf in enumerate(leaves) if leaf is not None}
        structures.append((structure, tuple(tensors)))
        return tuple(tensors.values())

    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns that shapes become constants, as intended
        traced = torch.jit.trace(encode_flat, torch.zeros(shape), check_trace=False)  # type: ignore[no-untyped-call]
        # openvino.convert_model would send telemetry if the user had imported OpenVINO before.
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        decoder = make_decoder(traced)  # a variable, because the front end keeps no reference
        model = frontend.convert(frontend.load(decoder))
        model.reshape(list(shape))
    constants_only = openvino.passes.Manager()
    constants_only.register_pass(openvino.passes.ConstantFolding())
    constants_only.run_passes(model)  # fold sizes, which would link coarse maps to finer ones
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # other processes may need these cores
    }
    models = (model,) if precision == "fp32" else split_at_fine_maps(openvino, model, shape)
    hints = ("f32", "bf16")[: len(models)]
    parts = (
        openvino.compile_model(part, "CPU", options | {"INFERENCE_PRECISION_HINT": hint})
        for part, hint in zip(models, hints, strict=True)
    )
    return CompiledGraph(tuple(parts), *structures[0])


def split_at_fine_maps(openvino: Any, model: Any, images: torch.Size) -> tuple[Any, Any]:
    """Split a model of images of one shape into the part that computes fine maps, and the rest."""
    fine = find_fine_nodes(model, images)
    outputs, inputs = [], []
    for node in fine.values():
        later = [
            port for port in node.output(0).get_target_inputs() if port.get_node().get_name() not in fine
        ]
        if later and node.get_type_name() != "Constant":
            outputs.append(node.output(0))
            inputs.append(
                openvino.op.Parameter(node.get_output_element_type(0), node.get_output_partial_shape(0))
            )
            for port in later:
                port.replace_source_output(inputs[-1].output(0))
    return openvino.Model(outputs, model.get_parameters()), openvino.Model(model.get_results(), inputs)


def find_fine_nodes(model: Any, images: torch.Size) -> dict[str, Any]:
    """Return, by name, the fine maps of a model and all nodes that they depend on. images: their shape."""

    def is_fine(node: Any) -> bool:
        shape = list(node.get_output_shape(0))
        is_map = len(shape) == 4 and shape[0] == images[0] and node.get_type_name() != "Constant"
        return is_map and all(side * FINE_STRIDE > of for side, of in zip(shape[2:], images[2:], strict=True))

    found: dict[str, Any] = {}
    for node in reversed([op for op in model.get_ordered_ops() if op.get_type_name() != "Result"]):
        is_needed = any(port.get_node().get_name() in found for port in node.output(0).get_target_inputs())
        if is_needed or is_fine(node):
            found[node.get_name()] = node
    return found


def import_openvino() -> tuple[Any, Any]:
    """Import OpenVINO and its decoder of torch graphs, without its telemetry.

    The telemetry would contact its makers and leave files in the home folder.
    """
    is_hidden = TELEMETRY not in sys.modules
    if is_hidden:
        sys.modules[TELEMETRY] = cast(Any, None)  # as if it were not installed
    try:
        import openvino
        import openvino.passes
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    finally:
        if is_hidden:
            del sys.modules[TELEMETRY]
    return openvino, TorchScriptPythonDecoder
