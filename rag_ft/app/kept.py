"""What a library holds, in one SQLite file: files, their passages and vectors. Each file changes as a whole.

The vectors are kept here too, though the index holds them: Chroma writes its files in place, so that a process killed
while it writes leaves an index that is damaged, or quietly lacks some. It is then made anew from these.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_builders.errors import RagFtError
from data_builders.records import Passage
from rag_ft.app.reading import Pages, Read

_VERSION = 2  # of the tables; those of another are made anew, and all files are read again
_OLD = "drop table if exists facts; drop table if exists files; drop table if exists passages;"
_TABLES = f"""
pragma user_version = {_VERSION};
create table if not exists facts (name text primary key, value text not null);
create table if not exists files (
    name text primary key, key text not null, limits text not null, problems text not null
);
create table if not exists passages (
    number integer primary key autoincrement, file text not null, id text not null, title text not null,
    text text not null, page integer not null, pages text not null, vector blob not null
);
create index if not exists passages_of_file on passages (file);
"""


@dataclass(frozen=True)
class KeptFile:
    """A file as it was read last.

    Attributes:
        key: changes with its content and with what decides how it is read.
        limits: changes with what decides whether it can be read; matters where there are problems.
        problems: what is wrong with it, in sentences.
    """

    key: str
    limits: str
    problems: tuple[str, ...]


class Kept:
    """The tables. Numbers of passages are never given twice. Callers see to it that one thread at a time is inside.

    Args:
        path: the file, made where there is none; None keeps everything in memory.

    Raises:
        RagFtError: the file is damaged, or cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        try:
            self._base = sqlite3.connect(path or ":memory:", check_same_thread=False)
            if self._base.execute("pragma user_version").fetchone()[0] != _VERSION:
                self._base.executescript(_OLD)
            self._base.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise RagFtError(
                f"the library in {path.parent if path else 'memory'} cannot be used ({error}). Delete that folder: "
                "the next question makes the library again."
            ) from error

    def fact(self, name: str) -> str:
        """Return a fact about the library, empty where there is none."""
        row = self._base.execute("select value from facts where name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def note(self, facts: Mapping[str, str]) -> None:
        """Keep facts."""
        with self._base:
            self._base.executemany("insert or replace into facts values (?, ?)", list(facts.items()))

    def files(self) -> dict[str, KeptFile]:
        """Return all files by name."""
        rows = self._base.execute("select name, key, limits, problems from files")
        return {name: KeptFile(key, limits, tuple(json.loads(problems))) for name, key, limits, problems in rows}

    def names_with_passages(self) -> set[str]:
        """Return the names of the files that have passages."""
        return {name for (name,) in self._base.execute("select distinct file from passages")}

    def replace(
        self, name: str, file: KeptFile, read: Read, vectors: np.ndarray[Any, Any]
    ) -> tuple[list[int], list[int]]:
        """Put a file in the place of what has its name; return the numbers of its passages, and of those now gone.

        Args:
            name: of the file.
            file: how it was read.
            read: what it holds.
            vectors: of its passages, float32 [passages, dimension].
        """
        with self._base:
            gone = self._forget(name)
            problems = json.dumps(file.problems, ensure_ascii=False)
            self._base.execute("insert into files values (?, ?, ?, ?)", (name, file.key, file.limits, problems))
            new = [
                self._base.execute(
                    "insert into passages (file, id, title, text, page, pages, vector) values (?, ?, ?, ?, ?, ?, ?)",
                    (name, one.id, one.title, one.text, one.page, json.dumps(pages), vector.astype("<f4").tobytes()),
                ).lastrowid
                for one, pages, vector in zip(read.passages, read.pages, vectors, strict=True)
            ]
        return [number for number in new if number is not None], gone

    def remove(self, name: str) -> list[int]:
        """Take a file out; return the numbers of its passages."""
        with self._base:
            return self._forget(name)

    def _forget(self, name: str) -> list[int]:
        gone = [number for (number,) in self._base.execute("select number from passages where file = ?", (name,))]
        self._base.execute("delete from passages where file = ?", (name,))
        self._base.execute("delete from files where name = ?", (name,))
        return gone

    def clear(self) -> None:
        """Take all files out."""
        with self._base:
            self._base.execute("delete from passages")
            self._base.execute("delete from files")

    def count(self) -> int:
        """Return the number of passages."""
        return int(self._base.execute("select count(*) from passages").fetchone()[0])

    def passages(self, numbers: Sequence[int]) -> dict[int, tuple[Passage, Pages]]:
        """Return passages by number, with where pages begin; their `document` is the name of the file."""
        marks = ",".join("?" * len(numbers))
        rows = self._base.execute(
            f"select number, pages, id, title, text, file, page from passages where number in ({marks})", list(numbers)
        )
        return {
            number: (Passage(*fields), tuple((offset, page) for offset, page in json.loads(pages)))
            for number, pages, *fields in rows
        }

    def vectors(self, at_once: int) -> Iterator[tuple[list[int], np.ndarray[Any, Any]]]:
        """Yield all numbers and their vectors, `at_once` at a time."""
        with closing(self._base.execute("select number, vector from passages order by number")) as rows:
            while batch := rows.fetchmany(at_once):
                yield [number for number, _ in batch], np.stack([np.frombuffer(blob, "<f4") for _, blob in batch])

    def close(self) -> None:
        """Close the file."""
        self._base.close()
