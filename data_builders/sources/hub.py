"""Any data set that `datasets` loads, streamed: from the Hub, or a local folder or table. Runs no code of theirs."""

from __future__ import annotations

import glob
import pkgutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.records import Passage, Ranking
from data_builders.sources.hub_columns import HubColumns, parse_columns
from data_builders.sources.rows import Format, Mapper, RowSettings, SourceRecord, Split, parsed_rows

TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    ".parquet": ("parquet", {}),
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".arrow": ("arrow", {}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
}
"""The endings of a single local file, and the builder of `datasets` that reads it, with its options."""


class HubSettings(RowSettings):
    """Any data set of the Hugging Face Hub, or local files that `datasets` loads, by the names of its columns."""

    kind: Literal["hub"]
    """Streams through `datasets`; code in data sets is never run."""
    dataset: Annotated[str, Field(min_length=1)]
    """A Hub id (`rajpurkar/squad`), a local folder, or one .parquet, .csv, .tsv, .json, .jsonl or .arrow file."""
    config: str | None = None
    """Which configuration, where the data set has several."""
    revision: str | None = None
    """A commit or tag of a Hub data set, so that the same recipe reads the same rows."""
    splits: str | Annotated[dict[Split, str], Field(min_length=1)] = "train"
    """The data set's split for each of ours: {train: train, test: validation}; one name leaves it to data.splits."""
    columns: HubColumns = HubColumns()
    """Which columns hold what."""
    corpus: Literal["by_split", "shared"] = "by_split"
    """With several splits: passages are searched by the questions of their own split, or by all."""


class Hub:
    """The source itself."""

    def __init__(self, settings: HubSettings, name: str, seed: int) -> None:
        self._settings = settings
        self._name = name
        self.format = Format("hub", _EXAMPLE, partial(parse_columns, settings.columns))

    def records(self, tally: Tally, mapper: Mapper = map) -> Iterator[SourceRecord]:
        """Stream each row's passages and then its question, split by split.

        Raises:
            RagFtError: the data set, configuration, split or a column is not there or cannot be read, or a row does
                not fit and `bad_rows` is `stop`.
        """
        settings = self._settings
        splits = settings.splits if isinstance(settings.splits, dict) else {"": settings.splits}
        for own, theirs in splits.items():
            where = (self._name, Path(f"{settings.dataset} ({theirs})"))
            for record in parsed_rows(hub_rows(settings, theirs), self.format, where, settings.bad_rows, tally):
                yield self._in_split(record, own)

    def _in_split(self, record: SourceRecord, split: str) -> SourceRecord:
        shared = self._settings.corpus == "shared" and isinstance(record, Passage)
        return record if shared or isinstance(record, Ranking) else replace(record, split=split)


_EXAMPLE = {"question": "When was the Aldern bridge opened?", "answers": ["1932"], "context": "It was opened in 1932."}


def hub_rows(settings: HubSettings, split: str) -> Iterator[dict[str, Any]]:
    """Stream the rows of one split of a data set.

    Raises:
        RagFtError: it is not there or cannot be read.
    """
    rows = iter(_split(settings, split))
    while True:
        try:
            row = next(rows, None)
        except Exception as error:  # as below: anything may be raised
            raise _unreadable(settings, error) from error
        if row is None:
            return
        yield row


def hub_splits(settings: HubSettings) -> list[str]:
    """Return the names of the splits a data set has.

    Raises:
        RagFtError: it is not there or cannot be read.
    """
    return [str(name) for name in _loaded(settings)]


def _split(settings: HubSettings, split: str) -> Any:
    loaded = _loaded(settings)
    if split not in loaded:
        there = ", ".join(map(str, loaded))
        raise RagFtError(f"{settings.dataset} has no split {split}, only {there}. Name one of them under splits.")
    return loaded[split]


def _loaded(settings: HubSettings) -> Any:
    import datasets

    local = Path(settings.dataset).expanduser()
    if settings.dataset in {module.name for module in pkgutil.iter_modules(datasets.packaged_modules.__path__)}:
        # it would read whatever lies in the working folder, pickles among it
        raise RagFtError(f"{settings.dataset} is a kind of file, not a data set: set dataset to the file or folder.")
    path, options = _table(local) if local.is_file() else (str(local) if local.is_dir() else settings.dataset, {})
    try:
        return datasets.load_dataset(path, settings.config, revision=settings.revision, streaming=True, **options)
    except Exception as error:  # files of others, read by others' libraries: anything may be raised
        raise _unreadable(settings, error) from error


def _table(file: Path) -> tuple[str, dict[str, Any]]:
    suffix = Path(file.name.removesuffix(".gz")).suffix.lower()
    if suffix not in TABLES:
        raise RagFtError(
            f"{file} does not end in {', '.join(TABLES)}: set dataset to such a file, a folder or a Hub id."
        )
    builder, options = TABLES[suffix]
    return builder, {"data_files": {"train": glob.escape(str(file))}, **options}


def _unreadable(settings: HubSettings, error: Exception) -> RagFtError:
    """Say in one sentence why a data set cannot be had; the libraries' own words name configurations and files."""
    reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    return RagFtError(f"cannot read the data set {settings.dataset}: {reason}. {_remedy(settings, error)}")


def _remedy(settings: HubSettings, error: Exception) -> str:
    import datasets

    text = str(error)
    if "OfflineMode" in text or (datasets.config.HF_HUB_OFFLINE and isinstance(error, ConnectionError)):
        return "HF_HUB_OFFLINE is set: unset it, or download the data set and set dataset to its folder."
    if isinstance(error, ConnectionError):
        return "Check the network, or set dataset to a local folder."
    if "onfig" in text and isinstance(error, ValueError):
        return "Set config to one of those."
    if "script" in text:
        return "Code in data sets is never run: convert it to Parquet, or take a revision that holds data files."
    return "Check dataset, config and revision; a private or gated one needs HF_TOKEN."
