"""Small files that declare or unpack to huge images; they must be refused before decoding."""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.ExifTags import Base as Tag

from benchmarks.robustness.isolated import Crashed, memory, run_isolated
from benchmarks.robustness.rows import Outcome, Row
from benchmarks.robustness.samples import scene
from kshot.errors import KshotError
from kshot.io.images import read_image, read_mask

SIDE = 30_000
"""Side in pixels: 900 MB once decoded, even with one bit per pixel."""

MAX_GROWTH = 50
"""In MB."""


def decompression_bombs(folder: Path) -> Outcome:
    """Read each bomb as an image and as a mask, in a process whose memory is measured."""
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    try:
        accepted, growth = run_isolated(read_bombs, folder)
    except Crashed as error:
        return Outcome(str(error), False)
    figure = f"{len(BOMBS)} bombs, {len(accepted)} accepted; memory grows by {growth:.0f} MB"
    return Outcome(figure, not accepted and growth < MAX_GROWTH)


def read_bombs(folder: Path) -> tuple[list[str], float]:
    """Return the names of accepted bombs and the growth of the peak memory in MB."""
    scene()[0].save(folder / "small.png")
    read_image(folder / "small.png")  # loads the decoders first
    before, accepted = memory()[0], []
    for name in BOMBS:
        for read in (read_image, lambda path: read_mask(path, (SIDE, SIDE))):
            try:
                read(folder / name)
                accepted.append(name)
            except KshotError:
                pass
    return accepted, memory()[1] - before


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@cache
def _png(*chunks: bytes, side: int = SIDE) -> bytes:
    """Return a black PNG with one bit per pixel."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _tiff() -> bytes:
    """Return a deflated TIFF with one bit per pixel."""
    strip = zlib.compress(bytes(SIDE // 8) * SIDE)
    strip += bytes(len(strip) % 2)
    tags = {Tag.ImageWidth: SIDE, Tag.ImageLength: SIDE, Tag.BitsPerSample: 1, Tag.Compression: 8}
    tags |= {Tag.PhotometricInterpretation: 1, Tag.StripOffsets: 8, Tag.SamplesPerPixel: 1}
    tags |= {Tag.RowsPerStrip: SIDE, Tag.StripByteCounts: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory


def _declared(kind: str, mark: bytes, skip: int, sides: bytes) -> bytes:
    """Return a small image whose header declares other sides, `skip` bytes after a marker."""
    content = BytesIO()
    Image.new("L", (64, 64)).save(content, kind)
    declared = bytearray(content.getvalue())
    place = declared.index(mark) + skip
    declared[place : place + len(sides)] = sides
    return bytes(declared)


def _webp() -> bytes:
    content = BytesIO()
    Image.new("L", (16_383, 16_383)).save(content, "WEBP", lossless=True, quality=0, method=0)
    return content.getvalue()


def _icon(image: bytes) -> bytes:
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 8, len(image), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + image


def _mac_icon(image: bytes) -> bytes:
    body = b"ic10" + struct.pack(">I", 8 + len(image)) + image
    return b"icns" + struct.pack(">I", 8 + len(body)) + body


TEXT = zlib.compress(bytes(100_000_000))
"""Metadata of 100 MB that is unpacked when a file is opened."""

BOMBS: dict[str, Callable[[], bytes]] = {
    "pixels.png": _png,
    "text.png": lambda: _png(_chunk(b"zTXt", b"Comment\0\0" + TEXT), side=64),
    "profile.png": lambda: _png(_chunk(b"iCCP", b"name\0\0" + TEXT), side=64),
    "pixels.tif": _tiff,
    "pixels.webp": _webp,
    "declared.jpg": lambda: _declared("JPEG", b"\xff\xc0", 5, struct.pack(">HH", 65_500, 65_500)),
    "declared.gif": lambda: _declared("GIF", b"GIF8", 6, struct.pack("<HH", 65_535, 65_535)),
    "declared.bmp": lambda: _declared("BMP", b"BM", 18, struct.pack("<II", SIDE, SIDE)),
    "declared.jp2": lambda: _declared("JPEG2000", b"ihdr", 4, struct.pack(">II", SIDE, SIDE)),
    "declared.pgm": lambda: b"P5 60000 60000 255\n",
    "image.ico": lambda: _icon(_png()),
    "image.icns": lambda: _mac_icon(_png()),
}

ROWS = (
    Row(
        "bombs",
        "decompression bombs, as images and as masks",
        "refused before decoding, memory grows < 50 MB",
        decompression_bombs,
    ),
)
