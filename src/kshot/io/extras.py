"""Import libraries that only some installations have."""

from importlib import import_module
from typing import Any

from kshot.errors import KshotError


def import_extra(module: str, need: str, extra: str) -> Any:
    """Return a module of one of kshot's extras.

    need: start of the error's text, such as "GeoTIFFs need rasterio". Raises KshotError if it is missing.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise KshotError(f"{need}: pip install 'kshot[{extra}]'.") from error
