"""Files that a visitor of the demo adds: held while they wait, checked, read into the session's own library."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_builders.documents.read import SUFFIXES
from data_builders.errors import RagFtError
from rag_ft.app.demo_sessions import Session, Sessions
from rag_ft.app.demo_talk import told
from rag_ft.app.demo_words import counted, say
from rag_ft.app.listing import printable_name

MOST_FILES = 50
"""Documents that a session may hold."""

_ADVICE = re.compile(r": set \w+=.*$")  # for who runs the page; a visitor has no settings
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """A sentence about a file; a passing one gives way to the next, since the list of documents says the same."""

    text: str
    passing: bool = False


@contextmanager
def held(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield files that stay until the block ends, whatever becomes of the uploads.

    Gradio deletes uploads after a while, which many scans may need before the last of them is read; and two visitors
    who upload the same file share it.
    """
    with tempfile.TemporaryDirectory(prefix="reading-", dir=files[0].parents[1] if files else None) as folder:
        kept = [Path(folder, str(number), file.name) for number, file in enumerate(files)]
        for file, own in zip(files, kept, strict=True):
            own.parent.mkdir()
            try:
                os.link(file, own)
            except OSError:  # a file system without links; a file that is gone already is told when its turn comes
                if file.exists():
                    shutil.copyfile(file, own)
        yield kept


def add_files(sessions: Sessions, session: Session, files: Sequence[Path], megabytes: int) -> Iterator[Line]:
    """Read uploaded files one by one; yield a sentence before and after each. A bad one does not stop the others.

    Args:
        sessions: opens the library of the session.
        session: whose documents they become.
        files: as they are `held`; their names are shown, where they lie is not.
        megabytes: the most that one may have.
    """
    for file in files:
        yield Line(say(session.language, "reading", name=printable_name(file.name)), passing=True)
        if reason := refusal(session, file, megabytes):
            yield Line(reason)
        else:
            yield _added(sessions, session, file)


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
    others = sum(count for other, count in session.documents.items() if other != name)
    count = session.documents[name] = added.passages - others
    problems = " ".join(_ADVICE.sub("", reason) for _, reason in added.refused)
    if not count:
        del session.documents[name]
        return Line(f"{name}: {problems}" if problems else say(session.language, "failed_file", name=name))
    read = say(session.language, "read", name=name, passages=counted(session.language, count))
    return Line(f"{read} {problems}".strip(), passing=not problems)
