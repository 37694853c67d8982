"""Reading images with OpenVINO: what torch would compute, as a graph that OpenVINO's CPU plugin runs.

A graph is made in memory, once for each shape of images; no file is written and nothing is sent.
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

Read = Callable[[Tensor], Any]
"""What makes features of images: nested tuples of tensors."""


FINE = 5
"""Pixels a position below which a map is fine, between the strides 4 and 8. Under bf16 a network makes its
fine maps in fp32 nevertheless: they are a small part of the work, and most precision is lost in them."""


class Graph(NamedTuple):
    """Compiled parts that run one after another, and how the last one's outputs are nested.

    places: which leaves of the nest they are.
    """

    parts: tuple[Any, ...]
    structure: pytree.TreeSpec
    places: tuple[int, ...]

    def run(self, images: Tensor) -> Any:
        """Compute the nest."""
        found: Any = [images.contiguous().numpy()]
        for part in self.parts:
            # A request of its own, for several threads may read with one graph.
            outputs = part.create_infer_request().infer(found)
            found = [outputs[place] for place in range(len(outputs))]
        leaves: list[Tensor | None] = [None] * self.structure.num_leaves
        for place, output in zip(self.places, found, strict=True):
            leaves[place] = torch.from_numpy(output)
        return pytree.tree_unflatten(leaves, self.structure)


class OpenVinoReader:
    """Reads images (B, 3, H, W) as a function of torch does, with as many threads as torch has."""

    def __init__(self, read: Read, precision: Literal["fp32", "bf16"]) -> None:
        self._read, self._precision = read, precision
        self._graphs: dict[tuple[int, ...], Graph] = {}
        self._lock = Lock()

    def __call__(self, images: Tensor) -> Any:
        """Give what the function would. Raises ModelError if OpenVINO cannot run it."""
        return self._graph(images.shape).run(images)

    def _graph(self, shape: torch.Size) -> Graph:
        key = (*shape, torch.get_num_threads())
        with self._lock:
            if key not in self._graphs:
                try:
                    self._graphs[key] = make_graph(self._read, shape, self._precision)
                except Exception as error:  # its translator has no kind of error of its own
                    raise ModelError(
                        f"OpenVINO cannot run this model ({reason_of(error)}). Use the engine torch."
                    ) from error
            return self._graphs[key]


def make_graph(read: Read, shape: torch.Size, precision: Literal["fp32", "bf16"]) -> Graph:
    """Translate a function of images of one shape, and compile it."""
    openvino, make_decoder = import_openvino()
    structures: list[tuple[pytree.TreeSpec, tuple[int, ...]]] = []

    def flat(images: Tensor) -> tuple[Tensor, ...]:
        leaves, structure = pytree.tree_flatten(read(images))
        there = {place: leaf for place, leaf in enumerate(leaves) if leaf is not None}
        structures.append((structure, tuple(there)))
        return tuple(there.values())

    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # that shapes become constants, as they are meant to
        traced = torch.jit.trace(flat, torch.zeros(shape), check_trace=False)  # type: ignore[no-untyped-call]
        # Not openvino.convert_model: it tells its makers, if the user has imported OpenVINO before.
        frontend = openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        decoder = make_decoder(traced)  # the front end keeps no reference to it
        model = frontend.convert(frontend.load(decoder))
        model.reshape(list(shape))
    constants_only = openvino.passes.Manager()
    constants_only.register_pass(openvino.passes.ConstantFolding())
    constants_only.run_passes(model)  # sizes, which would tie later maps to finer ones
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # others may want these cores, too
    }
    models = (model,) if precision == "fp32" else split(openvino, model, shape)
    hints = ("f32", "bf16")[: len(models)]
    parts = (
        openvino.compile_model(one, "CPU", options | {"INFERENCE_PRECISION_HINT": hint})
        for one, hint in zip(models, hints, strict=True)
    )
    return Graph(tuple(parts), *structures[0])


def split(openvino: Any, model: Any, images: torch.Size) -> tuple[Any, Any]:
    """Split a model of images of one shape into what leads to fine maps, and the rest, which takes those."""
    first = leads_to_fine(model, images)
    handed, taken = [], []
    for node in first.values():
        later = [one for one in node.output(0).get_target_inputs() if one.get_node().get_name() not in first]
        if later and node.get_type_name() != "Constant":
            handed.append(node.output(0))
            taken.append(
                openvino.op.Parameter(node.get_output_element_type(0), node.get_output_partial_shape(0))
            )
            for one in later:
                one.replace_source_output(taken[-1].output(0))
    return openvino.Model(handed, model.get_parameters()), openvino.Model(model.get_results(), taken)


def leads_to_fine(model: Any, images: torch.Size) -> dict[str, Any]:
    """Find, by name, all that a model needs for its fine maps; images are such."""

    def is_fine(node: Any) -> bool:
        shape = list(node.get_output_shape(0))
        is_map = len(shape) == 4 and shape[0] == images[0] and node.get_type_name() != "Constant"
        return is_map and all(side * FINE > of for side, of in zip(shape[2:], images[2:], strict=True))

    found: dict[str, Any] = {}
    for node in reversed([one for one in model.get_ordered_ops() if one.get_type_name() != "Result"]):
        is_needed = any(one.get_node().get_name() in found for one in node.output(0).get_target_inputs())
        if is_needed or is_fine(node):
            found[node.get_name()] = node
    return found


def import_openvino() -> tuple[Any, Any]:
    """Import OpenVINO, and what shows it torch's graphs.

    Its telemetry stays out, which calls its makers and leaves files in the home folder.
    """
    is_ours = TELEMETRY not in sys.modules
    if is_ours:
        sys.modules[TELEMETRY] = cast(Any, None)  # as though it were not installed
    try:
        import openvino
        import openvino.passes
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    finally:
        if is_ours:
            del sys.modules[TELEMETRY]
    return openvino, TorchScriptPythonDecoder
