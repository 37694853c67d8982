"""JSON from anywhere: read, or refused in one line."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kshot.errors import DataError, fault_of, reason_of

Document = TypeVar("Document", bound=BaseModel)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError that names it for what is none, too deeply nested, or too large."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON file ({reason_of(error)}).") from error
    except RecursionError:
        raise DataError(f"{path} is nested too deeply for an annotation file.") from None
    except MemoryError:
        raise DataError(f"{path} does not fit into the memory. Export fewer photographs.") from None


def parse(kind: type[Document], content: Any, what: str) -> Document:
    """Check what a JSON file holds. Raises DataError with `what` and the first fault for another document."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{what}: {fault_of(error)}.") from error
