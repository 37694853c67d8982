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


class Graph(NamedTuple):
    """A compiled graph, and how its outputs are nested; places: which leaves of the nest they are."""

    compiled: Any
    structure: pytree.TreeSpec
    places: tuple[int, ...]


class OpenVinoReader:
    """Reads images (B, 3, H, W) as a function of torch does, with as many threads as torch has."""

    def __init__(self, read: Read, precision: Literal["fp32", "bf16"]) -> None:
        self._read, self._precision = read, precision
        self._graphs: dict[tuple[int, ...], Graph] = {}
        self._lock = Lock()

    def __call__(self, images: Tensor) -> Any:
        """Give what the function would. Raises ModelError if OpenVINO cannot run it."""
        graph = self._graph(images.shape)
        # A request of its own, for several threads may read with one graph.
        found = graph.compiled.create_infer_request().infer([images.contiguous().numpy()])
        leaves: list[Tensor | None] = [None] * graph.structure.num_leaves
        for output, place in enumerate(graph.places):
            leaves[place] = torch.from_numpy(found[output])
        return pytree.tree_unflatten(leaves, graph.structure)

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
    options = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # others may want these cores, too
    }
    return Graph(openvino.compile_model(model, "CPU", options), *structures[0])


def import_openvino() -> tuple[Any, Any]:
    """Import OpenVINO, and what shows it torch's graphs.

    Its telemetry stays out, which calls its makers and leaves files in the home folder.
    """
    is_ours = TELEMETRY not in sys.modules
    if is_ours:
        sys.modules[TELEMETRY] = cast(Any, None)  # as though it were not installed
    try:
        import openvino
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    finally:
        if is_ours:
            del sys.modules[TELEMETRY]
    return openvino, TorchScriptPythonDecoder
