"""Write files whole or not at all: to a temporary name, synced, then renamed."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

from kshot.errors import WriteError

TEMPORARY = ".kshot-"
"""How the names of files begin that are not whole yet; one is left where a process was killed."""

FULL_OR_CLOSED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says of a place where no other file can be written either."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file that is written in the block, where the disk is full or read-only: raises WriteError.

    The system names none, or the temporary one.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_OR_CLOSED:
            raise
        raise cannot_write(path, str(error.strerror)) from error


def cannot_write(path: Path, reason: str) -> WriteError:
    """Make the error of a file that cannot be written."""
    error = WriteError(f"{path} cannot be written: {reason}. Free some space there, or choose another place.")
    error.strerror = reason  # as of any OSError
    return error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, sync it and move it there.

    A file of that name is thus always whole: the old one or the new one. Makes missing folders. Raises
    WriteError where there is no room, or one may not write.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def append_text(text: str, path: Path) -> None:
    """Add text to the end of a file. Raises WriteError where there is no room, or one may not write."""
    with writing(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def write_bytes(content: bytes | memoryview, path: Path) -> None:
    """Write a file, whole or not at all.

    What libraries write goes through here: many cannot say that a disk is full, or miss it.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all. Names of files in it may be no text."""
    with replacing(path) as temporary:
        temporary.write_text(text, errors="surrogateescape")


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of its suffix, whole or not at all."""
    content = BytesIO()
    picture.save(content, Image.registered_extensions()[path.suffix.lower()])
    write_bytes(content.getbuffer(), path)


def encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    """Give the content of a picture's file; kind and options are those of PIL's `save`."""
    content = BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()
