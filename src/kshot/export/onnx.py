"""A model as one ONNX graph, for programs without kshot or torch: docs/export.md."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kshot import __version__
from kshot.errors import KshotError
from kshot.export.base import register_exporter
from kshot.io.files import atomic_write
from kshot.methods.base import Method
from kshot.methods.config import ModelConfig
from kshot.methods.voting import decide, foreground
from kshot.models.hypercorrelation import resize
from kshot.segmenter import Segmenter
from kshot.types import Support

OPSET = 18
"""Version of ONNX's operators: the oldest that torch writes."""

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages that write the file and check it."""

TOLERANCE = 1e-4
"""Largest difference of a probability that a written graph may have from torch."""

BATCH, SHOTS = 2, 3
"""Sizes of the traced example: torch would treat 1, or two equal sizes, as constants."""


class GraphOutputs(NamedTuple):
    """The graph's outputs for each query: probability (B, H, W) float in [0, 1], mask (B, H, W) bool."""

    probability: Tensor
    mask: Tensor


class Graph(nn.Module):
    """A method as one function of B queries and K supports; B and K are dynamic."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, query: Tensor, support_images: Tensor, support_masks: Tensor) -> GraphOutputs:
        """Segment queries (B, 3, H, W) with supports (K, 3, H, W), both in [0, 1], and masks (K, 1, H, W)."""
        queries = self.method.features(query)
        support = Support(self.method.support_features(support_images), support_masks)
        shots = foreground(resize(self.method.match_all(queries, query.shape[0], support), query.shape[-2:]))
        shots_BKHW = shots.reshape(query.shape[0], -1, *query.shape[-2:])
        votes = (shots_BKHW > self.method.threshold).sum(dim=1)
        return GraphOutputs(shots_BKHW.mean(dim=1).clamp(max=1), decide(votes))


@register_exporter("onnx")
def export_onnx(segmenter: Segmenter, name: str, path: Path) -> float:
    """Write a model as an ONNX file, atomically; return its largest difference of a probability from torch.

    name: the model's, for the file's metadata.
    Raises KshotError if a package is missing, or if the probabilities differ from torch's.
    """
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise KshotError(f"Exporting needs {', '.join(missing)}: pip install {' '.join(missing)}.")
    if path.is_dir():
        raise KshotError(f"{path} is a folder; --out names the file to write, say {path / 'model.onnx'}.")
    if segmenter.method.adapts:
        raise KshotError(
            f"{name} learns from each support set anew, which a graph cannot hold. Export another model, "
            "such as two-pass or prototype."
        )
    example = _example(segmenter.config.image_size)
    with torch.inference_mode():
        expected = _segment(segmenter.method, *example)
    program = _trace(Graph(segmenter.method).eval(), example)
    program.model.metadata_props.update(_metadata(segmenter.config, name))
    with atomic_write(path) as temporary:
        program.save(temporary)
        difference = _difference(temporary, example, expected)
        if not difference <= TOLERANCE:
            raise KshotError(
                f"The graph of {name} differs from torch by {difference:.1e}, more than {TOLERANCE:.0e}: "
                "nothing was written. This is a bug; please report it."
            )
    return difference


def _example(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make queries, supports and masks; the masks are empty, full, and a rectangle."""
    generator = torch.Generator().manual_seed(0)
    query = torch.rand(BATCH, 3, size, size, generator=generator)
    images = torch.rand(SHOTS, 3, size, size, generator=generator)
    masks = torch.zeros(SHOTS, 1, size, size)
    masks[1] = 1
    masks[2, :, size // 4 : size // 2, size // 3 :] = 1
    return query, images, masks


def _segment(method: Method, query: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """Return the probabilities (B, H, W) as `Segmenter` computes them, to compare the graph with."""
    supports = [
        Support(
            method.support_features(image[None].expand_as(query)), mask[None].expand(len(query), -1, -1, -1)
        )
        for image, mask in zip(images, masks, strict=True)
    ]
    return method.segment(method.features(query), supports, (query.shape[-2], query.shape[-1])).probability


def _trace(graph: Graph, example: tuple[Tensor, Tensor, Tensor]) -> Any:
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass
    from onnxscript.optimizer import fold_constants, remove_unused_nodes

    batch, shots, same = torch.export.Dim("batch"), torch.export.Dim("shots"), torch.export.Dim.DYNAMIC
    shapes = {"query": {0: batch}, "support_images": {0: shots}, "support_masks": {0: same}}
    with torch.no_grad():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(shapes),
            output_names=list(GraphOutputs._fields),
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_pool},
            verbose=False,
            optimize=False,
        )
    assert program is not None
    # torch's own optimization takes minutes; these passes suffice.
    fold_constants(program.model)
    remove_unused_nodes(program.model)
    CommonSubexpressionEliminationPass()(program.model)
    return program


def _adaptive_pool(images: Any, output_size: Sequence[int]) -> Any:
    """Write adaptive pooling as matrix products; torch would write an addition for each pixel of a window.

    Sums are divided by the number of pixels, as in torch, so that a full mask leaves exactly 0 for the
    background.
    """
    from onnx_ir import tensor
    from onnxscript import opset18 as op

    def constant(values: NDArray[np.float32]) -> Any:
        value: Any = tensor(values)  # onnxscript's own type for it is too narrow
        return op.Constant(value=value)

    rows, columns = (
        _windows(length, size) for length, size in zip(images.shape[-2:], output_size, strict=True)
    )
    sums = op.MatMul(op.MatMul(constant(rows), images), constant(columns.T))
    return op.Div(sums, constant(np.outer(rows.sum(axis=1), columns.sum(axis=1))))


def _windows(length: int, size: int) -> NDArray[np.float32]:
    """Mark which of `length` positions each of `size` windows of adaptive pooling holds: (size, length)."""
    index, position = np.arange(size)[:, None], np.arange(length)
    starts, ends = index * length // size, -(-(index + 1) * length // size)
    return ((position >= starts) & (position < ends)).astype(np.float32)


def _metadata(config: ModelConfig, name: str) -> dict[str, str]:
    return {
        "model": name,
        "method": config.method,
        "backbone": config.backbone,
        "image_size": str(config.image_size),
        "threshold": str(config.threshold),
        "query": "RGB in [0, 1], squashed to a square of image_size pixels",
        "support_images": "as query",
        "support_masks": "1 on the object, 0 elsewhere, squashed likewise",
        "kshot_version": __version__,
    }


def _difference(path: Path, example: tuple[Tensor, Tensor, Tensor], expected: Tensor) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {put.name: value.numpy() for put, value in zip(session.get_inputs(), example, strict=True)}
    (found,) = session.run(["probability"], feed)
    return float(np.abs(found - expected.numpy()).max())
