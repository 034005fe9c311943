"""What must not leave this machine: secrets and folder names in files about to be uploaded. Uploads nothing."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from data_builders.files import cache_folder

# Each begins with its letters, so that `re` skips through a text from one to the next; what may not stand ahead of them
# is looked at afterwards. With \b in front, a million rows would take an hour.
_SHAPES = {
    "a token of the Hugging Face Hub": (r"hf_(?<!\whf_)[A-Za-z0-9]{30,}\b",),
    "an API key": (r"sk-(?<!\wsk-)(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{20,}",),
    "an access key of AWS": (r"AKIA(?<!\wAKIA)[A-Z0-9]{16}\b", r"ASIA(?<!\wASIA)[A-Z0-9]{16}\b"),
    "a secret key of AWS": (
        r"aws_secret_access_key\W{1,5}[A-Za-z0-9/+=]{40}",
        r"AWS_SECRET_ACCESS_KEY\W{1,5}[A-Za-z0-9/+=]{40}",
    ),
    "a private key": (r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY",),
    "a token of GitHub": (r"gh[pousr]_[A-Za-z0-9]{36,}", r"github_pat_[A-Za-z0-9_]{22,}"),
    "a token of Slack": (r"xox[abprs]-[A-Za-z0-9-]{10,}",),
    "an API key of Google": (r"AIza[A-Za-z0-9_-]{35}\b",),
    "a password in an address": (r"://[^/\s:@\"']+:[^/\s:@\"']+@[\w.-]",),
}
_ALWAYS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")
_SHORTEST = 8  # a key shorter than this ("EMPTY", "none") is what people write for a server that asks for none
_HOME_PARTS = ("/home/", "Users")
_HOMES = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\{1,2}Users\\{1,2})[\w.-]+")
_ABSOLUTE = re.compile(r"(?:/|~[/\\]|[A-Za-z]:[\\/]|\\\\|file://)[^\n]+")


@dataclass(frozen=True)
class Finding:
    """What was found where. It never holds the secret itself.

    Attributes:
        where: line or row, counted from 1.
        what: what kind of thing it is.
    """

    where: str
    what: str


@dataclass(frozen=True)
class Secrets:
    """Values that nobody may see, by what they are called: environment variables, and the Hub's token."""

    values: Mapping[str, str]

    @cached_property
    def patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        """What gives a secret away, each with what it is."""
        own = {f"the value of {name}": (re.escape(value),) for name, value in self.values.items()}
        return [(what, re.compile(shape)) for what, shapes in {**own, **_SHAPES}.items() for shape in shapes]

    def found(self, text: str) -> Iterator[Finding]:
        """Yield the first place of each kind of secret in a text."""
        for what, pattern in self.patterns:
            if match := pattern.search(text):
                yield Finding(_line(text, match.start()), what)

    def found_in_rows(self, table: Path) -> Iterator[Finding]:
        """Yield the first row of a Parquet file that holds a secret, for each kind."""
        import pyarrow.parquet as parquet

        first, told = 1, set[str]()
        for batch in parquet.ParquetFile(table).iter_batches(batch_size=512):
            together = "\n".join(text for column in batch.columns for text in _texts(column))
            for what in sorted({finding.what for finding in self.found(together)} - told):
                told.add(what)
                yield Finding(f"row {first + self._row(batch, what)}", what)
            first += batch.num_rows

    def _row(self, batch: Any, what: str) -> int:
        """Return which row of a batch holds the secret; the first where it stands across two texts."""
        texts = (
            "\n".join(text for column in batch.slice(row, 1).columns for text in _texts(column))
            for row in range(batch.num_rows)
        )
        return next(
            (row for row, text in enumerate(texts) if any(finding.what == what for finding in self.found(text))), 0
        )

    def hidden(self, text: str) -> str:
        """Return a text, as of a server's refusal, with every secret taken out."""
        for _, pattern in self.patterns:
            text = pattern.sub("***", text)
        return text


def known_secrets(names: Iterable[str], token: str | None = None) -> Secrets:
    """Return the secrets of this session.

    Args:
        names: environment variables that hold keys, as the recipe names them; the usual ones are always among them.
        token: the Hub's, wherever it is kept.
    """
    values = {name: os.environ.get(name, "").strip() for name in (*_ALWAYS, *names)}
    values["the token you are logged in with"] = token or ""
    return Secrets({name: value for name, value in values.items() if len(value) >= _SHORTEST})


def key_variables(recipe: Any) -> Iterator[str]:
    """Yield the name of every environment variable that a resolved recipe says holds a key."""
    if isinstance(recipe, Mapping):
        for name, value in recipe.items():
            if name == "api_key_env" and isinstance(value, str):
                yield value
            else:
                yield from key_variables(value)
    elif isinstance(recipe, (list, tuple)):
        for item in recipe:
            yield from key_variables(item)


@dataclass(frozen=True)
class Places:
    """Folders of this machine whose names are nobody's business, longest first."""

    folders: tuple[str, ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """A path below one of the folders, or below somebody's home."""
        known = "|".join(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])" for folder in self.folders)
        return re.compile("|".join(filter(None, [known, _HOMES.pattern])))

    def found(self, text: str) -> Iterator[Finding]:
        """Yield the first line that names such a folder."""
        likely = any(part in text for part in (*self.folders, *_HOME_PARTS))  # far faster than the pattern
        if likely and (match := self.pattern.search(text)):
            yield Finding(_line(text, match.start()), "the name of a folder of this machine")

    def without(self, value: Any) -> Any:
        """Return a value as JSON has it, every local path cut down to `./` and its last part, in keys too."""
        if isinstance(value, Mapping):
            found: dict[str, Any] = {}
            for key, item in value.items():
                found[_unused(self.without(key), found)] = self.without(item)
            return found
        if isinstance(value, (list, tuple)):
            return [self.without(item) for item in value]
        return self._cut(value) if isinstance(value, str) else value

    def _cut(self, text: str) -> str:
        if _ABSOLUTE.fullmatch(text) and _is_path(text):
            return f"./{_last_part(text)}"
        path = re.compile(rf"(?:{self.pattern.pattern})[^\s\"'<>|]*")
        return path.sub(lambda match: f"./{_last_part(match.group())}", text)


def known_places(*folders: Path) -> Places:
    """Return the folders of this machine: home, the working folder, caches, temporary files, and those given."""
    usual = (Path.home(), Path.cwd(), cache_folder(), Path(tempfile.gettempdir()), *folders)
    names = {str(form) for folder in usual for form in (folder.absolute(), folder.resolve())}
    return Places(tuple(sorted((name for name in names if len(name) > 1), key=len, reverse=True)))


def _line(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1}"


def _texts(column: Any) -> Iterator[str]:
    """Yield every text in an Arrow column, however deep in lists and structures."""
    import pyarrow as pa

    if pa.types.is_struct(column.type):
        for part in column.flatten():
            yield from _texts(part)
    elif pa.types.is_list(column.type):
        yield from _texts(column.flatten())
    elif pa.types.is_string(column.type):
        yield from (text for text in column.to_pylist() if text)


def _is_path(text: str) -> bool:
    """Tell a path from a text that begins like one ("/no_think")."""
    return not text.startswith("/") or text.count("/") > 1 or Path(text).exists()


def _last_part(path: str) -> str:
    return PurePosixPath(PureWindowsPath(path.rstrip("/\\")).name).name


def _unused(key: Any, taken: Mapping[str, Any]) -> Any:
    """Return a key that two local paths do not share."""
    number, free = 2, key
    while free in taken:
        free, number = f"{key} ({number})", number + 1
    return free
