"""kshot segments a new class of thing from one to five labelled examples.

from kshot import Segmenter
segmenter = Segmenter.from_pretrained().fit(["cup.jpg"], ["cup_mask.png"])
mask = segmenter.predict("table.jpg").mask
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kshot.errors import (
    DataError,
    ImageError,
    KshotError,
    MaskError,
    ModelError,
    NotFittedError,
    WeightsError,
    WriteError,
)

if TYPE_CHECKING:
    from kshot.methods.hub import list_models
    from kshot.results import Instance, SegmentationResult
    from kshot.segmenter import Segmenter

    __version__: str

__all__ = [
    "DataError",
    "ImageError",
    "Instance",
    "KshotError",
    "MaskError",
    "ModelError",
    "NotFittedError",
    "SegmentationResult",
    "Segmenter",
    "WeightsError",
    "WriteError",
    "__version__",
    "list_models",
]


_LAZY = {
    "Instance": "kshot.results",
    "SegmentationResult": "kshot.results",
    "Segmenter": "kshot.segmenter",
    "list_models": "kshot.methods.hub",
}


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, which help and errors of options do not need.
    if name == "__version__":
        from importlib.metadata import version

        return version("kshot")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'kshot' has no attribute '{name}'")
