"""Label Studio's run lengths of brush strokes: rle-pack's stream of bits.

32 bits   number of values
5 bits    bits of a value, less one
4 x 4     bits of a length, less one: four sizes to choose from
then, until there are so many values:
1 bit     1: one value comes many times; 0: so many different values
2 bits    which of the four sizes
…         the length, less one; then the value, or the values
"""

import numpy as np
from numpy.typing import NDArray

from kshot.errors import MaskError

HEAD = 32 + 5 + 4 * 4


def unpack(packed: list[int], expected: int) -> NDArray[np.unsignedinteger]:
    """Give the `expected` values that a list of bytes packs.

    Raises MaskError for another number of values, or a stream that ends too early.
    """
    if any(not 0 <= byte <= 255 for byte in packed) or 8 * len(packed) < HEAD:
        raise MaskError("Brush strokes are no packed bytes; the file is damaged.")
    bits = np.unpackbits(np.array(packed, dtype=np.uint8))
    number, width = _number(bits[:32]), _number(bits[32:37]) + 1
    if number != expected:
        raise MaskError(f"Brush strokes have {number} values, but their picture {expected}: it is damaged.")
    sizes = [_number(bits[start : start + 4]) + 1 for start in range(37, HEAD, 4)]
    weights = 1 << np.arange(width - 1, -1, -1, dtype=np.uint32)
    values: NDArray[np.unsignedinteger] = np.zeros(expected, dtype=np.uint8 if width <= 8 else np.uint32)
    done, place = 0, HEAD
    while done < expected:
        size = sizes[_number(bits[place + 1 : place + 3])]
        is_run = place < len(bits) and bool(bits[place])
        place += 3 + size
        count = _number(bits[place - size : place]) + 1
        stop = place + width * (1 if is_run else count)
        if stop > len(bits) or done + count > expected:
            raise MaskError("Brush strokes end too early, or late; the file is damaged.")
        values[done : done + count] = bits[place:stop].reshape(-1, width) @ weights
        done, place = done + count, stop
    return values


def _number(bits: NDArray[np.uint8]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big") >> (-len(bits) % 8)
