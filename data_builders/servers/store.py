"""Replies on disk: each is committed as it arrives, and none is asked for twice. Knows no server."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from data_builders.errors import RagFtError
from data_builders.servers import Asker, Call, Reply

Arrived: TypeAlias = Callable[[Sequence[tuple[Call, Reply]]], None]
Source: TypeAlias = Callable[[Iterable[Call], Arrived], Generator[tuple[Call, Reply], None, None]]
"""An asker that tells of replies the moment they are there, perhaps in another thread, before it yields them."""

_OURS = 0x52414746  # application_id of the file's header: "RAGF"
_AHEAD = 256  # replies read from disk while others are awaited
_TABLE = """CREATE TABLE replies (
    hash TEXT PRIMARY KEY, key TEXT NOT NULL, model TEXT NOT NULL, problem TEXT, may_pass INTEGER NOT NULL,
    reply TEXT NOT NULL)"""
_PUT = "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?)"
CUT_OFF = "the answer is cut off at max_tokens"
"""The problem under which answers are listed that are marked as truncated."""


def kept(asker: Asker, path: Path, identity: Mapping[str, Any]) -> Asker:
    """Return an asker that commits every reply to a file before it yields it, and asks only for what is not there.

    Args:
        asker: who is asked.
        path: the file; made where there is none.
        identity: what besides messages and schema decides an answer: the model (under "model"), settings.

    Asking raises RagFtError: the file is damaged or none of ours, cannot be written, or another process uses it.
    """

    def source(calls: Iterable[Call], arrived: Arrived) -> Generator[tuple[Call, Reply], None, None]:
        for pair in asker(calls):
            arrived([pair])
            yield pair

    return kept_on_arrival(source, path, identity)


def kept_on_arrival(source: Source, path: Path, identity: Mapping[str, Any]) -> Asker:
    """Return what `kept` does, for a source that tells of replies before they are awaited."""
    lock = FileLock(f"{path}.lock", timeout=0)

    def ask(calls: Iterable[Call]) -> Iterator[tuple[Call, Reply]]:
        with _alone(lock, path), Store.open(path) as store:
            waiting = iter(calls)
            for call in waiting:
                known = store.get(call_hash(identity, call))
                if known is None:
                    yield from _asked(source, chain([call], waiting), store, identity)
                else:
                    yield call, known

    return ask


def _asked(
    source: Source, waiting: Iterable[Call], store: Store, identity: Mapping[str, Any]
) -> Iterator[tuple[Call, Reply]]:
    """Ask for what is not in the store; yield what is, as it is met, and at the end what others asked the same for.

    Ends early, with all answered that was taken, once many replies were found in a row: they would pile up while one
    answer is awaited.
    """
    found: deque[tuple[Call, Reply]] = deque()
    under_way: dict[int, tuple[Call, str]] = {}  # hashes, each with its call, since a hash takes as long as a commit
    awaited: set[str] = set()
    same: list[tuple[Call, str]] = []  # calls that say what one under way says

    def missing() -> Iterator[Call]:
        for call in waiting:
            digest = call_hash(identity, call)
            if digest in awaited:
                same.append((call, digest))
            elif (known := store.get(digest)) is not None:
                found.append((call, known))
            else:
                awaited.add(digest)
                under_way[id(call)] = (call, digest)
                yield call
                continue
            if len(found) + len(same) >= _AHEAD:
                return

    def digest_of(call: Call) -> str:
        asked, digest = under_way.pop(id(call), (None, ""))
        return digest if asked is call else call_hash(identity, call)

    def arrived(fresh: Sequence[tuple[Call, Reply]]) -> None:
        rows = [(digest_of(call), call.key, reply) for call, reply in fresh]
        store.put(str(identity.get("model", "")), rows)
        awaited.difference_update(digest for digest, _, _ in rows)

    with closing(source(missing(), arrived)) as pairs:  # so that it has put the last before the file is closed
        for pair in pairs:
            while found:
                yield found.popleft()
            yield pair
    yield from found
    for call, digest in same:
        yield call, store.get(digest, failed=True) or Reply(failure="no answer came", may_pass=True)


def call_hash(identity: Mapping[str, Any], call: Call) -> str:
    """Return the SHA-256 of all that decides a call's answer; its key and the server's address are not part of it."""
    others = [call.schema, *filter(None, [call.begun])]
    canonical = f"[{_canonical(identity)},{call.conversation},{_canonical(others)[1:]}"
    return hashlib.sha256(canonical.encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)


@dataclass(frozen=True)
class Store:
    """An open file of replies. Used by two threads: the one that asks puts, the one that awaits gets."""

    path: Path
    database: sqlite3.Connection
    lock: Lock

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Store]:
        """Open the file, or make it.

        Raises:
            RagFtError: it is damaged, none of ours, or cannot be written.
        """
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with closing(database):
            with _told(path):
                _prepare(database, path)
            yield cls(path, database, Lock())

    def get(self, digest: str, *, failed: bool = False) -> Reply | None:
        """Return the reply to the call of this hash; None where there is none.

        A failure that may pass is none, but for `failed`.
        """
        query = "SELECT reply FROM replies WHERE hash = ? AND may_pass <= ?"
        with self.lock, _told(self.path):
            row = self.database.execute(query, (digest, failed)).fetchone()
        return None if row is None else _reply_of(row[0], self.path)

    def put(self, model: str, replies: Iterable[tuple[str, str, Reply]]) -> None:
        """Commit replies, each with its call's hash and key. They outlive the process from here on."""
        rows = [_row(model, *one) for one in replies]
        with self.lock, _told(self.path):
            self.database.execute("BEGIN")
            self.database.executemany(_PUT, rows)
            self.database.execute("COMMIT")


def _row(model: str, digest: str, key: str, reply: Reply) -> tuple[str, str, str, str | None, bool, str]:
    problem = CUT_OFF if reply.failure is None and reply.truncated else reply.failure
    written = json.dumps({name: value for name, value in vars(reply).items() if value is not None})
    return digest, key, model, problem, reply.may_pass, written


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    whose = database.execute("PRAGMA application_id").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if whose != _OURS and (whose or tables):
        raise _no_store(path, "another program's database")
    # With a write-ahead log a commit is one write: 40 microseconds, and safe from anything but a power cut.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    if not tables:
        database.execute("BEGIN")
        database.execute(f"PRAGMA application_id = {_OURS}")
        database.execute(_TABLE)
        database.execute("COMMIT")


def _reply_of(written: str, path: Path) -> Reply:
    try:
        return Reply(**json.loads(written))
    except (ValueError, TypeError):
        raise _no_store(path, "a reply in it cannot be read") from None


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say what is wrong with the file in one sentence."""
    try:
        yield
    except sqlite3.OperationalError as error:  # full, read-only, a folder, no permission
        if "no such" in str(error) or "has no column" in str(error):
            raise _no_store(path, str(error)) from None
        raise _cannot_write(path, str(error)) from None
    except sqlite3.DatabaseError as error:
        raise _no_store(path, str(error)) from None
    except OSError as error:
        raise _cannot_write(path, error.strerror or str(error)) from None


def _cannot_write(path: Path, why: str) -> RagFtError:
    return RagFtError(
        f"cannot keep replies in {path}: {why}. Free some space, make the folder writable, or choose another with "
        "runs_dir=PATH."
    )


def _no_store(path: Path, why: str) -> RagFtError:
    return RagFtError(
        f"{path} is damaged or holds no kept replies ({why}). Move it away, with the files beside it that begin with "
        f"{path.name}, or restore it from a copy; without it everything is asked again."
    )


@contextmanager
def _alone(lock: FileLock, path: Path) -> Iterator[None]:
    """Hold the file's lock, which the system gives back whatever becomes of this process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RagFtError(
            f"another process is asking for what is kept in {path}. Wait until it has ended, or end it, and run the "
            "same command again."
        ) from None
    except OSError as error:
        raise _cannot_write(path, error.strerror or str(error)) from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class Problems:
    """Calls without a whole answer, for one reason. `examples`: key and reason in full of the latest few."""

    count: int
    examples: tuple[tuple[str, str], ...] = ()


def listed(path: Path, examples: int = 5) -> dict[str, Problems]:
    """Return what calls ended without a whole answer, by reason, the commonest first; empty where no file is.

    Those of earlier settings and prompts are among them: a step that tells of its own calls counts what it was given.

    Raises:
        RagFtError: the file is damaged or none of ours.
    """
    if not path.exists():
        return {}
    found: dict[str, Problems] = {}
    with _told(path), closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        query = "SELECT key, problem FROM replies WHERE problem IS NOT NULL ORDER BY rowid DESC"
        for key, problem in database.execute(query):
            reason = problem.partition(":")[0]
            known = found.get(reason, Problems(0))
            shown = (*known.examples, (key, problem))[:examples]
            found[reason] = replace(known, count=known.count + 1, examples=shown)
    return dict(sorted(found.items(), key=lambda item: -item[1].count))
