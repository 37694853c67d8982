"""kshot segments a new class of thing from one to five labelled examples.

from kshot import Segmenter
segmenter = Segmenter.from_pretrained().fit(["cup.jpg"], ["cup_mask.png"])
mask = segmenter.predict("table.jpg")
"""

from importlib.metadata import version
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
    from kshot.segmenter import Explanation, LabelExplanation, LabelSegmenter, Segmenter

__version__ = version("kshot")
__all__ = [
    "DataError",
    "Explanation",
    "ImageError",
    "KshotError",
    "LabelExplanation",
    "LabelSegmenter",
    "MaskError",
    "ModelError",
    "NotFittedError",
    "Segmenter",
    "WeightsError",
    "WriteError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import; whoever only asks for help or a version need not wait.
    if name in ("Explanation", "LabelExplanation", "LabelSegmenter", "Segmenter"):
        from kshot import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module 'kshot' has no attribute '{name}'")
