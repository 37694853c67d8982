"""Leave out a PNG's metadata: Pillow refuses sound images whose profile or text is large or malformed."""

import re
import zlib
from io import BytesIO
from typing import BinaryIO

KEPT = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"))
"""Chunks with pixels, transparency, frames and orientation."""

XMP = b"XML:com.adobe.xmp\0"
"""Start of a text chunk that may hold the orientation."""

MAX_XMP = 100_000
"""Bytes of XMP data that are kept: cameras and editors write a few thousand."""

IS_NAME = re.compile(rb"[A-Za-z]{4}")


def without_metadata(file: BinaryIO) -> BytesIO | None:
    """Return a PNG with the KEPT chunks only; None if it has no others, or if it is damaged."""
    file.seek(0)
    signature = file.read(8)
    kept, has_others = [signature], False
    while head := file.read(8):
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        body = file.read(length + 4)  # with its checksum
        if len(body) < length + 4 or not IS_NAME.fullmatch(kind):
            return None
        if kind in KEPT or (kind == b"iTXt" and body.startswith(XMP) and length < MAX_XMP):
            kept += [head, body]
        elif zlib.crc32(kind + body[:-4]) != int.from_bytes(body[-4:], "big") or kind[:1].isupper():
            return None
        else:
            has_others = True
        if kind == b"IEND":
            break
    return BytesIO(b"".join(kept)) if has_others else None
