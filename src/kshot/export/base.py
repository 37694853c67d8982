"""Exporters by name: what `kshot export --format` offers."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kshot.errors import KshotError
from kshot.plugins import Plugins

if TYPE_CHECKING:
    from kshot.segmenter import Segmenter


class Exporter(Protocol):
    """A function that writes a model in a format, for programs without kshot."""

    def __call__(self, segmenter: "Segmenter", name: str, path: Path) -> float:
        """Write a model, atomically; return its largest difference of a probability from torch.

        name: the model's, for the metadata. Raises KshotError if the model cannot be written.
        """


EXPORTERS: Plugins[Exporter] = Plugins(
    "export format", "kshot.exporters", {"onnx": "kshot.export.onnx"}, KshotError
)
"""Exporters by the name of their format."""

register_exporter = EXPORTERS.register
