"""How much one server takes, and what it says when that is too much."""

from dataclasses import dataclass

from kshot.errors import KshotError

RETRY_AFTER = "10"
"""Seconds that a busy server asks for."""


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one server's memory and disk within reason."""

    upload_bytes: int = 64 * 2**20
    """Of one request's body; larger ones are refused before they are read."""
    pixels: int = 40_000_000
    """Of one photograph: a canvas of more is beyond some browsers."""
    photographs: int = 500
    """Of one session."""
    session_bytes: int = 2 * 2**30
    """Of one session's uploads."""
    supports: int = 20
    """Labelled photographs of one session: their features stay in memory."""
    sessions: int = 50
    queue: int = 2000
    """Photographs that wait to be segmented, of all sessions."""
    seconds_to_live: float = 12 * 3600
    """Of a session that nobody asks for."""


class TooMuchError(KshotError):
    """A request goes beyond a limit of its session, whatever else the server does."""


class BusyError(KshotError):
    """The server has too much to do just now; the same request may succeed later."""
