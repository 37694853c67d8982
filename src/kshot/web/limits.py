"""Limits of a server, and the errors raised when one is exceeded."""

from dataclasses import dataclass

from kshot.errors import KshotError

RETRY_AFTER = "10"
"""Seconds that a busy server asks clients to wait."""


@dataclass(frozen=True)
class Limits:
    """Limits on the memory and disk that one server uses."""

    upload_bytes: int = 64 * 2**20
    """Maximum size of a request body; larger ones are refused before they are read."""
    pixels: int = 40_000_000
    """Maximum number of pixels of an image; some browsers cannot show a larger canvas."""
    images: int = 500
    """Maximum number of images in a session."""
    session_bytes: int = 2 * 2**30
    """Maximum size of all uploads of a session."""
    supports: int = 20
    """Maximum number of labelled images in a session: their features stay in memory."""
    sessions: int = 50
    """Maximum number of open sessions."""
    queue: int = 2000
    """Maximum number of images of all sessions that wait to be segmented."""
    idle_seconds: float = 12 * 3600
    """Seconds without a request after which a session expires."""


class LimitExceededError(KshotError):
    """A request exceeds a limit of its session."""


class BusyError(KshotError):
    """The server is too busy; the same request may succeed later."""
