"""kshot segments a new class of thing from one to five labelled examples.

from kshot import Segmenter
segmenter = Segmenter.from_pretrained().fit(["cup.jpg"], ["cup_mask.png"])
mask = segmenter.predict("table.jpg").mask
"""

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
from kshot.lazy import lazy_names

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

_find = lazy_names(
    __name__,
    {
        "kshot.methods.hub": "list_models",
        "kshot.results": "Instance SegmentationResult",
        "kshot.segmenter": "Segmenter",
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kshot")
    return _find(name)
