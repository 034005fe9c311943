"""Folders that are exported to: there is room for them, and they are there whole or not at all. Writes no weights."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
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
    there = next(each for each in folder.resolve().parents if each.is_dir())  # it is written beside the folder
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
        RagFtError: it does, or it is no folder, or the one that the user is in.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RagFtError(f"--output {folder}: this is a file. Give the path of a folder that is not there yet.")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise RagFtError(
            f"--output {folder}: an export takes the place of a whole folder, and you are inside this one. Give the "
            "path of a folder that is not there yet."
        )
    exported = _exported(folder)
    there = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    others = sorted(set(there) - exported)
    if others:
        of_which = (
            f"which is not of the earlier export that its {RECORD} tells of"
            if exported
            else (f"and no {RECORD} of an earlier export")
        )
        raise RagFtError(
            f"--output {folder}: the folder holds {others[0]}, {of_which}, so it will not be replaced. Give the path "
            "of a folder that is not there yet."
        )


def _exported(folder: Path) -> set[str]:
    """Return the files of an earlier export, by its own record; none where the folder holds no export."""
    try:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {RECORD, *told["files"]} if "form" in told else set()
    except (OSError, ValueError, TypeError, KeyError):
        return set()


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder beside `folder` that takes its place at the end; what fails or is killed leaves nothing there.

    Two exports to one folder at a time do not disturb each other: the one that ends last stays.

    Raises:
        RagFtError: the disk is full.
    """
    place = folder.resolve()  # of a link, the folder it leads to is replaced
    _clear_away(place)
    temporary, before = (place.with_name(f".{place.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if place.exists():
            place.rename(before)
        temporary.rename(place)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("nothing was exported; the same command begins anew.") from interrupt
    except Exception as error:
        # safetensors, torch and tokenizers name a full disk in exceptions of their own
        if isinstance(error, RagFtError) or os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise RagFtError(
            f"cannot write {folder}: {os.strerror(errno.ENOSPC)}. Free some space, or choose a folder on another disk "
            "with --output FOLDER."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _settle(before, place)


def _settle(before: Path, place: Path) -> None:
    """Delete what was replaced, or put it back where nothing has taken its place."""
    if before.exists() and not place.exists():
        before.rename(place)
    shutil.rmtree(before, ignore_errors=True)


def _clear_away(place: Path) -> None:
    """Delete what exports to a place have left that were killed; those of living processes go on."""
    psutil: Any = import_module("psutil")  # comes with accelerate
    named = re.compile(rf"\.{re.escape(place.name)}\.(\d+)\.(tmp|old)")
    for left in list(place.parent.iterdir()) if place.parent.is_dir() else ():
        found = named.fullmatch(left.name)
        if found is None or (int(found[1]) != os.getpid() and psutil.pid_exists(int(found[1]))):
            continue
        if found[2] == "old":
            _settle(left, place)
        shutil.rmtree(left, ignore_errors=True)


def record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write what was exported into the folder, with the size of every file; whoever may read that may read them all."""
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    write_json(folder / RECORD, {**facts, "files": files})
    readable = (folder / RECORD).stat().st_mode
    for name in files:  # safetensors writes for the owner alone
        (folder / name).chmod(readable)
