"""All open sessions of a server."""

import secrets
import threading
import time
from pathlib import Path

from kshot.web.limits import BusyError, Limits
from kshot.web.session import Session


class Sessions:
    """The open sessions, each with a subfolder of one folder."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def create(self) -> Session:
        """Create a session. Raises BusyError if too many are open."""
        self.expire()
        with self._lock:
            if len(self._sessions) >= self.limits.sessions:
                raise BusyError(
                    f"{len(self._sessions)} sessions are open, which is the maximum. Try again later."
                )
            session_id = secrets.token_urlsafe(16)
            session = Session(session_id, self.folder / secrets.token_hex(8), self.limits)
            self._sessions[session_id] = session
            return session

    def get(self, session_id: str) -> Session | None:
        """Return a session and reset its idle time, or None if it is unknown or has expired."""
        self.expire()
        with self._lock:
            session = self._sessions.get(session_id)
            if session is not None:
                session.last_used = time.monotonic()
            return session

    def close(self, session: Session) -> None:
        """Close a session and delete its files."""
        with self._lock:
            self._sessions.pop(session.id, None)
        session.close()

    def expire(self) -> None:
        """Close the sessions that have been idle for too long."""
        before = time.monotonic() - self.limits.idle_seconds
        with self._lock:
            expired = [session for session in self._sessions.values() if session.last_used < before]
        for session in expired:
            self.close(session)
