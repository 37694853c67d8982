"""Faster computations of the numbers that `kshot.models` defines, behind one switch.

    with kernels.disabled():
        prediction = method(query, support, mask)   # the plain computation

`tests/test_kernels.py` compares the two in values and in all gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_enabled = True


def enabled() -> bool:
    """Return whether the kernels are used; they are, outside of `disabled()`."""
    return _enabled


def fuses_matching() -> bool:
    """Return whether the encoder uses its kernels: never in an exported graph, which must serve any mask."""
    return _enabled and not torch.compiler.is_exporting()


def memory_format() -> torch.memory_format:
    """Return the memory format of feature maps: channels last, as convolutions and matching read them."""
    return torch.channels_last if _enabled else torch.contiguous_format


@contextmanager
def disabled() -> Iterator[None]:
    """Compute everything plainly, in all threads, until the `with` block ends."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before
