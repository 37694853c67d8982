"""Decode and encode Label Studio's brush strokes, a stream of bits in rle-pack's format.

32 bits   number of values
5 bits    bits per value, minus one
4 x 4     bits per length, minus one: four sizes to choose from
then, until all values are decoded:
1 bit     1: one value, repeated; 0: that many different values
2 bits    which of the four sizes
…         the length, minus one; then the value or values
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kshot.errors import MaskError

HEADER_BITS = 32 + 5 + 4 * 4

CHANNELS = 4
"""Values of a pixel."""

RUN_BITS = 16
"""Bits of a run length in what is encoded."""


def decode_brush(packed: list[int], expected: int) -> NDArray[np.unsignedinteger]:
    """Return the `expected` values that are packed in a list of bytes.

    Raises MaskError for another number of values or a damaged stream.
    """
    if any(not 0 <= byte <= 255 for byte in packed) or 8 * len(packed) < HEADER_BITS:
        raise MaskError("Brush strokes are no packed bytes; the file is damaged.")
    bits = np.unpackbits(np.array(packed, dtype=np.uint8))
    number, width = _integer(bits[:32]), _integer(bits[32:37]) + 1
    if number != expected:
        raise MaskError(f"Brush strokes have {number} values, but their image {expected}: it is damaged.")
    sizes = [_integer(bits[start : start + 4]) + 1 for start in range(37, HEADER_BITS, 4)]
    weights = 1 << np.arange(width - 1, -1, -1, dtype=np.uint32)
    values: NDArray[np.unsignedinteger] = np.zeros(expected, dtype=np.uint8 if width <= 8 else np.uint32)
    done, position = 0, HEADER_BITS
    while done < expected:
        size = sizes[_integer(bits[position + 1 : position + 3])]
        is_run = position < len(bits) and bool(bits[position])
        position += 3 + size
        count = _integer(bits[position - size : position]) + 1
        stop = position + width * (1 if is_run else count)
        if stop > len(bits) or done + count > expected:
            raise MaskError("Brush strokes end too early, or late; the file is damaged.")
        values[done : done + count] = bits[position:stop].reshape(-1, width) @ weights
        done, position = done + count, stop
    return values


def encode_brush(lengths: Sequence[int]) -> list[int]:
    """Return a mask as packed bytes of an RGBA image, white and opaque on the object, else transparent.

    lengths: the mask's run lengths along its rows, the background's first.
    """
    bits = [f"{CHANNELS * sum(lengths):032b}{7:05b}", f"{RUN_BITS - 1:04b}" * 4]
    for place, length in enumerate(lengths):
        value = 255 * (place % 2)
        for done in range(0, CHANNELS * length, 2**RUN_BITS):
            count = min(CHANNELS * length - done, 2**RUN_BITS)
            bits.append(f"100{count - 1:0{RUN_BITS}b}{value:08b}")
    joined = "".join(bits)
    padded = joined + "0" * (-len(joined) % 8)
    return list(int(padded, 2).to_bytes(len(padded) // 8, "big"))


def _integer(bits: NDArray[np.uint8]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big") >> (-len(bits) % 8)
