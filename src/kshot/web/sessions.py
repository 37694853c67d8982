"""All sessions of a server, and how long they live."""

import secrets
import threading
import time
from pathlib import Path

from kshot.web.limits import BusyError, Limits
from kshot.web.session import Session


class Sessions:
    """All sessions of a server, below one folder."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self) -> Session:
        """Begin a session. Raises BusyError if there are too many."""
        self.expire()
        with self._lock:
            if len(self._sessions) >= self.limits.sessions:
                raise BusyError(
                    f"There are {len(self._sessions)} sessions, and no more are taken. Come back later."
                )
            name = secrets.token_urlsafe(16)
            session = self._sessions[name] = Session(name, self.folder / secrets.token_hex(8), self.limits)
            return session

    def find(self, name: str) -> Session | None:
        """Give a session, which then lives on, or None if it is unknown or has expired."""
        self.expire()
        with self._lock:
            session = self._sessions.get(name)
            if session is not None:
                session.touched = time.monotonic()
            return session

    def close(self, session: Session) -> None:
        """End a session, and forget its photographs."""
        with self._lock:
            self._sessions.pop(session.id, None)
        session.close()

    def expire(self) -> None:
        """End the sessions that nobody has asked for in a long time."""
        before = time.monotonic() - self.limits.seconds_to_live
        with self._lock:
            expired = [session for session in self._sessions.values() if session.touched < before]
        for session in expired:
            self.close(session)
