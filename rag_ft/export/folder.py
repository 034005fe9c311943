"""Folders that are exported to: there is room for them, and they are there whole or not at all. Writes no weights."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import write_json

RECORD = "export.json"
_SPARE = 0.02  # of what is written: tokenizer, configuration, what the file system takes for itself


def check_room(folder: Path, needed: int, what: str) -> str:
    """Return a line that says there is room on a folder's disk for `needed` bytes.

    Args:
        folder: where the export goes; it need not be there yet.
        needed: bytes that will be written.
        what: what is exported, in words.

    Raises:
        RagFtError: there is less room.
    """
    there = next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
    free, needed = shutil.disk_usage(there).free, int(needed * (1 + _SPARE))
    if free < needed:
        raise RagFtError(
            f"{what} needs {_gigabytes(needed)} on the disk of {folder}, and only {_gigabytes(free)} are free. Free "
            "some space, or choose a folder on another disk with --output FOLDER."
        )
    return f"disk: {_gigabytes(needed)} needed, {_gigabytes(free)} free"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def check_place(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier export, which would be deleted.

    Raises:
        RagFtError: it does, or it is no folder.
    """
    if not folder.exists() or (folder / RECORD).is_file():
        return
    if not folder.is_dir():
        raise RagFtError(f"--output {folder}: this is a file. Give the path of a folder that is not there yet.")
    names = sorted(each.name for each in folder.iterdir())
    if names:
        raise RagFtError(
            f"--output {folder}: the folder holds {names[0]}, and no {RECORD} of an earlier export, so it will not be "
            "replaced. Give the path of a folder that is not there yet."
        )


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place at the end; what fails or is killed leaves nothing there.

    Raises:
        RagFtError: the disk is full.
    """
    temporary, before = (folder.with_name(f".{folder.name}.{end}") for end in ("tmp", "old"))
    for left in (temporary, before):
        shutil.rmtree(left, ignore_errors=True)  # of an export that was killed
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rename(before)
        temporary.rename(folder)
    except Exception as error:
        # safetensors, torch and tokenizers name a full disk in exceptions of their own
        if isinstance(error, RagFtError) or os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise RagFtError(
            f"cannot write {folder}: {os.strerror(errno.ENOSPC)}. Free some space, or choose a folder on another disk "
            "with --output FOLDER."
        ) from error
    finally:
        for left in (temporary, before):
            shutil.rmtree(left, ignore_errors=True)


def record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what was exported into the folder, with the size of every file; whoever may read that may read them all."""
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    write_json(folder / RECORD, {**facts, "files": files})
    readable = (folder / RECORD).stat().st_mode
    for name in files:  # safetensors writes for the owner alone
        (folder / name).chmod(readable)
