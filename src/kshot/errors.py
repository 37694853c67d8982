"""The errors that a user can cause and correct. Each says what is wrong, the value, and what to do."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind if it has none, to quote in ours."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def fault_of(error: "ValidationError") -> str:
    """Return where a file's first fault is, and what it is."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"


class KshotError(Exception):
    """Base of every error that kshot raises on purpose."""


class ImageError(KshotError, ValueError):
    """An image cannot be read or is not an image."""


class MaskError(KshotError, ValueError):
    """A mask does not say which pixels of its image are foreground."""


class WeightsError(KshotError):
    """Weights are missing, unreadable, or not those of the network that asks for them."""


class ModelError(KshotError, ValueError):
    """A model, method or backbone does not exist or cannot be built as asked."""


class DataError(KshotError, ValueError):
    """A benchmark, its files, or what was drawn from it is not as it must be."""


class WriteError(KshotError, OSError):
    """A file cannot be written: the disk is full, or one may not write there."""


class NotFittedError(KshotError, RuntimeError):
    """A segmenter was asked to segment before it has seen a support."""


def failure_reason(error: Exception) -> str:
    """Return in one line why one of many images failed, whatever was raised."""
    if isinstance(error, KshotError | OSError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "It does not fit into the memory. Use --tile or --long-side, or end other programs."
    return f"Unexpected error: {type(error).__name__}: {reason_of(error)}."
