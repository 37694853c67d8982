"""Models in formats for programs without kshot."""

from typing import TYPE_CHECKING

from kshot.lazy import lazy_names

if TYPE_CHECKING:
    from kshot.export.base import EXPORTERS, Exporter, register_exporter
    from kshot.export.onnx import export_onnx

__all__ = ["EXPORTERS", "Exporter", "export_onnx", "register_exporter"]

__getattr__ = lazy_names(
    __name__,
    {
        "kshot.export.base": "EXPORTERS Exporter register_exporter",
        "kshot.export.onnx": "export_onnx",
    },
)
