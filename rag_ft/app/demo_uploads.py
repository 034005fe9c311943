"""Files that a visitor of the demo adds: kept until they are read, checked, read into the session's own library."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from data_builders.documents.read import SUFFIXES
from data_builders.errors import RagFtError
from rag_ft.app import Added
from rag_ft.app.demo_refusals import in_words
from rag_ft.app.demo_sessions import Session, Sessions
from rag_ft.app.demo_talk import told, without_paths
from rag_ft.app.demo_words import PageLanguage, counted, say
from rag_ft.app.listing import printable_name

MOST_FILES = 50
"""Documents that a session may hold."""
KEPT = 15 * 60.0
"""Seconds after which an upload that nobody reads is deleted."""

_ADVICE = re.compile(r": set \w+=.*$")  # for who runs the page; a visitor has no settings
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """A sentence about a file; a passing one gives way to the next, since the list of documents says the same."""

    text: str
    passing: bool = False


class Uploads:
    """The folder in which files wait until they are read. The same file of two visitors lies there once.

    Gradio gives uploads their place by what they hold, and leaves what a broken connection began lying there.

    Args:
        folder: of the uploads, made by whoever serves the page.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: Counter[Path] = Counter()
        self._lock = threading.Lock()

    def arrived(self, files: Iterable[str]) -> None:
        """Note files that have come in; each is going to be `held` as often."""
        with self._lock:
            self._waiting.update(map(Path, files))

    @contextmanager
    def held(self, files: Sequence[Path]) -> Iterator[list[Path]]:
        """Yield files that stay until the block ends, whatever others do; then they are deleted."""
        with tempfile.TemporaryDirectory(prefix="reading-", dir=self.folder, ignore_cleanup_errors=True) as folder:
            kept = [Path(folder, str(number), file.name) for number, file in enumerate(files)]
            for file, own in zip(files, kept, strict=True):
                own.parent.mkdir()
                _linked(file, own)
            try:
                yield kept
            finally:
                for file, own in zip(files, kept, strict=True):
                    self._done(file, own)

    def _done(self, file: Path, own: Path) -> None:
        """Delete an upload, unless it waits for another visitor too."""
        with self._lock:
            self._waiting[file] -= 1
            if self._waiting[file] > 0:
                return
            del self._waiting[file]
            with suppress(OSError):
                if _is_same(file, own):
                    file.unlink()

    def sweep(self) -> None:
        """Delete what nobody has read for too long: half of a file, or one whose visitor has left."""
        for file in self.folder.glob("*") if self.folder.is_dir() else ():
            for one in (file,) if file.is_file() else () if file.name.startswith("reading-") else file.glob("*"):
                with self._lock, suppress(OSError):
                    if time.time() - one.stat().st_mtime > KEPT:
                        one.unlink()
                        del self._waiting[one]


def _linked(file: Path, own: Path) -> None:
    try:
        os.link(file, own)
    except OSError:  # a file system without links; a file that is gone already is told when its turn comes
        if file.exists():
            shutil.copy2(file, own)


def _is_same(file: Path, own: Path) -> bool:
    """Tell whether an upload is what was held: another visitor's of the same name may have taken its place."""
    state, of_own = file.stat(), own.stat()
    return file.samefile(own) or (state.st_size, state.st_mtime_ns) == (of_own.st_size, of_own.st_mtime_ns)


def add_files(sessions: Sessions, session: Session, files: Sequence[Path], megabytes: int) -> Iterator[Line]:
    """Read uploaded files one by one; yield a sentence before and after each. A bad one does not stop the others.

    It ends early where the session is deleted meanwhile.

    Args:
        sessions: opens the library of the session.
        session: whose documents they become.
        files: as they are `held`; their names are shown, where they lie is not.
        megabytes: the most that one may have.
    """
    for file in files:
        yield Line(say(session.language, "reading", name=printable_name(file.name)), passing=True)
        with session.adding:
            reason = refusal(session, file, megabytes)
            line = Line(reason) if reason else _added(sessions, session, file)
        if session.gone:
            return
        yield line


def refusal(session: Session, file: Path, megabytes: int) -> str:
    """Return why a file is not even opened; empty if it is."""
    name = printable_name(file.name)
    if not file.is_file():
        return say(session.language, "failed_file", name=name)
    size = file.stat().st_size
    if file.suffix.lower() not in SUFFIXES:
        return say(session.language, "wrong_kind", name=name, kinds=", ".join(SUFFIXES))
    if not size:
        return say(session.language, "empty_file", name=name)
    if size > megabytes * 2**20:
        return say(session.language, "too_large", name=name, megabytes=megabytes)
    if name not in session.documents and len(session.documents) >= MOST_FILES:
        return say(session.language, "too_many_files", name=name, most=MOST_FILES)
    return ""


def _added(sessions: Sessions, session: Session, file: Path) -> Line:
    """Read a file into the session's library; one of the same name gives way to it."""
    name = printable_name(file.name)
    try:
        added = sessions.open(session).add_file(file, name)
    except RagFtError as error:
        return Line(f"{name}: {told(error)}")
    except Exception:  # whatever a file does to its reader, the page lives on
        _LOG.exception("an uploaded file could not be read")
        return Line(say(session.language, "failed_file", name=name))
    with session.lock:
        if session.gone:
            return Line("")
        others = sum(count for other, count in session.documents.items() if other != name)
        count = added.passages - others
        session.documents[name] = count
        if not count:
            del session.documents[name]
    return _told_of(name, count, added, session.language)


def _told_of(name: str, count: int, added: Added, language: PageLanguage) -> Line:
    """Return what became of a file, without advice that only who runs the page could follow."""
    reasons = [without_paths(_ADVICE.sub("", reason)) for _, reason in added.refused]
    problems = " ".join(in_words(language, reason) for reason in reasons)
    if not count:
        return Line(f"{name}: {problems}" if problems else say(language, "failed_file", name=name))
    read = say(language, "read", name=name, passages=counted(language, count))
    return Line(f"{read} {problems}".strip(), passing=not problems)
