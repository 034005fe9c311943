"""Which files of a folder a library reads, and why it does not read the others. Opens none of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_builders.documents.read import SUFFIXES
from data_builders.errors import RagFtError


@dataclass(frozen=True)
class Listed:
    """A file of a folder.

    Attributes:
        path: where it is.
        name: its path below the folder with `/`; what cannot be printed stands there as an escape.
        refusal: why it is not read; empty if it is.
    """

    path: Path
    name: str
    refusal: str = ""


def list_documents(documents: Path) -> list[Listed]:
    """Return the files below a folder, or the one file given, sorted by name. Names that begin with a dot are left out.

    Raises:
        RagFtError: there is neither a file nor a folder.
    """
    given = documents.expanduser()
    if given.is_file():
        return [Listed(given, printable_name(given.name), kind_refusal(given))]
    if not given.is_dir():
        raise RagFtError(f"there is no file and no folder {documents}. Give a folder of documents, or one document.")
    found: dict[str, Listed] = {}
    for one in sorted(_walked(given), key=lambda listed: (listed.name, os.fsencode(listed.path))):
        if one.name in found:
            one = Listed(one.path, f"{one.name} (2)", "has the name of another file, but for letters that do not print")
        found[one.name] = one
    return list(found.values())


def printable_name(name: str) -> str:
    """Return a name of the file system without letters that do not print or turn the writing round."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def kind_refusal(path: Path) -> str:
    """Return why a file of this name is not read; empty if it is."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return ""
    kind = f"a {printable_name(suffix)} file" if suffix else "a file without an ending"
    return f"is {kind}, which is not read: save it as PDF, text, Markdown or HTML"


def _walked(root: Path) -> Iterator[Listed]:
    inside = root.resolve()
    closed: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*folders, *files]:
            path = Path(folder, name)
            if name.startswith(".") or (name in folders and not path.is_symlink()):
                continue
            yield Listed(path, _name(path, root), _refusal(path, inside))
    for error in closed:
        yield Listed(Path(error.filename), _name(Path(error.filename), root), "cannot be opened: check its permissions")


def _name(path: Path, root: Path) -> str:
    return printable_name(path.relative_to(root).as_posix())


def _refusal(path: Path, inside: Path) -> str:
    """Return why a file is not read: documents of others may hold links to files that are none of theirs."""
    try:
        if path.is_symlink() and not path.resolve(strict=True).is_relative_to(inside):
            return "is a link that leads out of the folder"
        mode = path.stat().st_mode
    except (OSError, RuntimeError):  # a circle of links is a RuntimeError
        return "is a link that leads nowhere, or cannot be opened"
    if stat.S_ISDIR(mode):
        return "is a link to a folder; links to folders are not followed"
    return kind_refusal(path) if stat.S_ISREG(mode) else "is no ordinary file"
