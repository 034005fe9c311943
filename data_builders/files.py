"""Atomic files, content hashes and seeded randomness: what every step needs to be resumable and reproducible."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on any failure.

    Raises:
        RagFtError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if (
            not isinstance(error, (PermissionError, NotADirectoryError, FileExistsError))
            and error.errno not in _DISK_ERRNOS
        ):
            raise
        raise RagFtError(
            f"cannot write {path}: {error.strerror}. Free some space or choose another folder with runs_dir=PATH."
        ) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None


_DISK_ERRNOS = {28, 30, 122}  # no space left, read-only file system, quota exceeded


def cache_folder() -> Path:
    """Return the folder of what can be made again: RAG_FT_CACHE, else rag-ft in the user's cache folder."""
    base = os.environ.get("RAG_FT_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rag-ft"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically, keys in the order given."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def content_hash(value: Any) -> str:
    """Return the first 16 hex digits of SHA-256 over `value` as canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seeded(*parts: str | int) -> random.Random:
    """Return a generator that depends on `parts` only (seed, purpose, row id, epoch), never on iteration order."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8]))
