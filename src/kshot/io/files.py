"""Read JSON, and write files atomically: to a temporary name, synced, then renamed."""

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar

from PIL import Image
from pydantic import BaseModel, ValidationError

from kshot.errors import DataError, WriteError, fault_of, reason_of

TEMPORARY_PREFIX = ".kshot-"
"""Start of the names of unfinished files; a killed process leaves one behind."""

NO_WRITE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""System errors after which no other file can be written to the same place either."""

Document = TypeVar("Document", bound=BaseModel)


@contextmanager
def naming_write_errors(path: Path) -> Iterator[None]:
    """Raise WriteError with `path` if the disk is full or read-only in the block.

    The system's own error names no file, or the temporary one.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_WRITE_ERRNOS:
            raise
        raise write_error(path, str(error.strerror)) from error


def write_error(path: Path, reason: str) -> WriteError:
    """Return the error for a file that cannot be written."""
    error = WriteError(f"{path} cannot be written: {reason}. Free some space there, or choose another place.")
    error.strerror = reason  # which every OSError has
    return error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds, sync that file and rename it to `path`.

    So `path` is always complete: the old file or the new one. Creates missing folders. Raises WriteError if
    the disk is full or writing is not allowed.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}{path.suffix}")
    with naming_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def append_text(text: str, path: Path) -> None:
    """Append text to a file. Raises WriteError if the disk is full or writing is not allowed."""
    with naming_write_errors(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def write_bytes(content: bytes | memoryview, path: Path) -> None:
    """Write a file atomically.

    Libraries should write to memory and pass the bytes here: many do not report or notice a full disk.
    """
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(text: str, path: Path) -> None:
    """Write a text file atomically. File names in it that are not valid UTF-8 keep their bytes."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, errors="surrogateescape")


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image atomically, in the format of the path's suffix."""
    content = BytesIO()
    image.save(content, Image.registered_extensions()[path.suffix.lower()])
    write_bytes(content.getbuffer(), path)


def encode_image(image: Image.Image, file_format: str, **options: int) -> bytes:
    """Return the bytes of an image file; format and options are those of PIL's `save`."""
    content = BytesIO()
    image.save(content, file_format, **options)
    return content.getvalue()


def read_lines(path: Path) -> tuple[list[str], str]:
    """Return the lines of a text file and its encoding: utf-8, utf-16 if it begins so, or else cp1252.

    A byte-order mark is no part of the first line. Raises DataError if the file is unreadable or not text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    encodings = ("utf-16",) if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            return content.decode(encoding).splitlines(), encoding.removesuffix("-sig")
    raise DataError(f"{path} is no text file. Save it as UTF-8.")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError if it is unreadable, not JSON, too deeply nested or too large."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON file ({reason_of(error)}).") from error
    except RecursionError:
        raise DataError(f"{path} is nested too deeply for an annotation file.") from None
    except MemoryError:
        raise DataError(f"{path} does not fit into the memory. Export fewer images.") from None


def validate(model: type[Document], content: Any, problem: str) -> Document:
    """Return JSON content as a pydantic model. Raises DataError: `problem`, then the first fault."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{problem}: {fault_of(error)}.") from error


def check_place(path: Path) -> None:
    """Raise DataError now, and not after hours of work, if a file cannot be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}. Choose another place.") from error
    if path.is_dir():
        raise DataError(f"{path} is a folder. Give the name of a file.")
