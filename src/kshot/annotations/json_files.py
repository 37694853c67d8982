"""JSON from anywhere: read, or refused in one line."""

import json
from pathlib import Path
from typing import Any

from kshot.errors import DataError, reason_of


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError that names it for what is none, or is nested too deeply."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON file ({reason_of(error)}).") from error
    except RecursionError:
        raise DataError(f"{path} is nested too deeply for an annotation file.") from None
