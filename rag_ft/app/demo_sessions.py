"""Who is on the demo page, with their own documents and questions: nothing of one session is within another's reach."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from data_builders.errors import RagFtError
from rag_ft.app import Added, Found
from rag_ft.app.demo_talk import Turn
from rag_ft.app.demo_words import PageLanguage

IDLE = 2 * 60 * 60.0
"""Seconds after which a session that asks nothing is deleted."""
GRACE = 60.0
"""Seconds a session is kept after its page was left: connections break and come back."""
MOST_TURNS = 50


class SharedLibrary(Protocol):
    """A library that is searched for everyone."""

    def search(self, question: str, k: int) -> list[Found]:
        """Return the best `k` passages, best first."""
        ...


class OwnLibrary(Protocol):
    """A library of one session, whose documents go when it is closed."""

    def add_file(self, path: Path, name: str) -> Added:
        """Read one file, under a name of its own, in the place of what has that name."""
        ...

    def search(self, question: str, k: int) -> list[Found]:
        """Return the best `k` passages, best first."""
        ...

    def close(self) -> None:
        """Delete all of it; a file that is being read is given up."""
        ...


@dataclass
class Session:
    """One visitor.

    Attributes:
        library: holds them; None until the first one comes.
        documents: name -> passages of each document that was read.
        turns: what was asked before, oldest first.
        current: what was asked last, with its answer as far as it is written.
        language: of the page.
        ends_at: when it is deleted unless it is used before, in seconds of the clock of its `Sessions`.
        gone: it was deleted: whoever still holds it adds nothing to it any more.
        lock: of the fields above.
        adding: held while a document is read, so that one at a time changes what there is.
    """

    ends_at: float
    library: OwnLibrary | None = None
    documents: dict[str, int] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    current: Turn | None = None
    language: PageLanguage = "en"
    gone: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    adding: threading.Lock = field(default_factory=threading.Lock)

    def put_by(self) -> None:
        """Make the current turn one of the earlier ones; the oldest goes where there are too many."""
        if self.current is not None:
            self.turns = [*self.turns, self.current.stopped()][-MOST_TURNS:]
            self.current = None


class Sessions:
    """All sessions of one server, by the key that the page was given. Safe to use from several threads."""

    def __init__(
        self,
        open_library: Callable[[], OwnLibrary],
        *,
        shared: SharedLibrary | None = None,
        most: int = 200,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nobody.

        Args:
            open_library: makes an empty library, for one session.
            shared: searched for everyone.
            most: sessions at a time.
            clock: seconds; another one in tests.
        """
        self._open, self._shared = open_library, shared
        self._most, self._clock = most, clock
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, key: str) -> Session:
        """Return the session of a key, a new one for a new key; using it keeps it.

        Raises:
            RagFtError: there are too many. Its message is a key of the page's words.
        """
        self.sweep()
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                if len(self._sessions) >= self._most:
                    raise RagFtError("too_many_sessions")
                session = self._sessions[key] = Session(0.0)
            session.ends_at = self._clock() + IDLE
            return session

    def open(self, session: Session) -> OwnLibrary:
        """Return a session's own library; opened with its first document.

        Raises:
            RagFtError: the session was deleted. Its message is a key of the page's words.
        """
        with session.lock:
            if session.gone:
                raise RagFtError("forgotten")
            if session.library is None:
                session.library = self._open()
            return session.library

    def search(self, session: Session, question: str, passages: int) -> list[Found]:
        """Return the best passages of what this session may see: its own documents and those open to everyone."""
        libraries = [library for library in (self._shared, session.library) if library is not None]
        found = [one for library in libraries for one in library.search(question, passages)]
        return sorted(found, key=lambda one: -one.score)[:passages]

    def has_documents(self, session: Session) -> bool:
        """Whether there is anything to search."""
        return self._shared is not None or bool(session.documents)

    def leave(self, key: str) -> None:
        """A page was closed: its session goes after a grace, unless it comes back."""
        with self._lock:
            if key in self._sessions:
                self._sessions[key].ends_at = min(self._sessions[key].ends_at, self._clock() + GRACE)

    def drop(self, key: str) -> None:
        """Delete all of a session, now."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            _delete(session)

    def sweep(self) -> None:
        """Delete the sessions whose time is up."""
        now = self._clock()
        for key in [key for key, session in list(self._sessions.items()) if session.ends_at <= now]:
            self.drop(key)

    def close(self) -> None:
        """Delete every session."""
        for key in list(self._sessions):
            self.drop(key)


def _delete(session: Session) -> None:
    with session.lock:
        session.gone, library, session.library = True, session.library, None
        session.documents, session.turns, session.current = {}, [], None
    if library is not None:
        library.close()
