"""The corpora that are searched: one file of passages for all splits and one each, every id and text once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_builders.corpus import BATCH_ROWS
from data_builders.errors import RagFtError
from data_builders.files import atomic_path
from data_builders.manifest import Tally
from data_builders.records import PASSAGE_SCHEMA
from data_builders.sources.rows import SPLITS

_SPLITS = ("", *SPLITS)
SHARED = "shared"  # what the file of the passages of every split is called
_BLANK = -1  # in place of the number of a split: a passage without text
_READ = 32_768  # passages in memory at once
_SAMPLES = 5

Aliases = Mapping[tuple[str, str], str]
"""(split, id of a passage left out) -> id of the passage with the same text that stays."""


@dataclass(frozen=True)
class _Keys:
    """Hashes of id and of title and text, and the number of the split, of every passage in the order of the source."""

    ids: np.ndarray[Any, Any]
    texts: np.ndarray[Any, Any]
    splits: np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Choice:
    """Which passages stay; for each that does not, the row of the one that stands for it, else -1."""

    kept: np.ndarray[Any, Any]
    stands_for: np.ndarray[Any, Any]


def clean_passages(raw: Path, targets: Mapping[str, Path], tally: Tally) -> Aliases:
    """Write the passages of `raw` by split (`targets`), each text once among those a split searches.

    Memory: 17 bytes per passage and one batch.

    Raises:
        RagFtError: two different passages of one split have the same id.
    """
    keys = _read_keys(raw, tally)
    choice = _choose(keys)
    ids = pq.read_table(raw, columns=["id"])["id"]
    _refuse_ambiguous(ids, keys, choice)
    aliases = _aliases(ids, keys, choice)
    again = int((choice.stands_for >= 0).sum()) - len(aliases)
    if again:
        tally.count("passages that came again", again)
    if aliases:
        tally.drop("passages with the text of another", len(aliases))
        tally.samples["passages with the text of another"] = [id_ for _, id_ in aliases][:_SAMPLES]
    for code, split in enumerate(_SPLITS):
        target = targets[split or SHARED]
        tally.rows[target.name] = _write(raw, target, choice.kept & (keys.splits == code))
    return aliases


def _read_keys(raw: Path, tally: Tally) -> _Keys:
    ids, texts, splits = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)], [np.zeros(0, np.int8)]
    for batch in pq.ParquetFile(raw).iter_batches(batch_size=_READ):
        ids.append(np.array([_digest(id_) for id_ in batch["id"].to_pylist()], np.uint64))
        spaced = [
            f"{title}\n{text}".casefold().split()
            for title, text in zip(batch["title"].to_pylist(), batch["text"].to_pylist(), strict=True)
        ]
        texts.append(np.array([_digest(" ".join(words)) for words in spaced], np.uint64))
        codes = pc.index_in(batch["split"], value_set=pa.array(_SPLITS)).to_numpy().astype(np.int8)
        blank = np.array([not text.strip() for text in batch["text"].to_pylist()], bool)
        splits.append(np.where(blank, _BLANK, codes))
        for words in spaced:
            tally.measure("words per passage", len(words))
        if blank.any():
            tally.drop("passages without text", int(blank.sum()), batch["id"][int(np.flatnonzero(blank)[0])].as_py())
    return _Keys(np.concatenate(ids), np.concatenate(texts), np.concatenate(splits))


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def _choose(keys: _Keys) -> _Choice:
    """Keep the first passage of each id and text; those of every split come before those of one."""
    kept = np.zeros(len(keys.ids), bool)
    stands_for = np.full(len(keys.ids), -1, np.int64)
    shared = np.zeros(0, np.int64)
    for code in range(len(_SPLITS)):
        rows = np.concatenate([shared, np.flatnonzero(keys.splits == code)])
        for column in (keys.ids, keys.texts):
            first = _first(column[rows])
            later = first != np.arange(len(rows))
            stands_for[rows[later]] = rows[first[later]]
            rows = rows[~later]
        kept[rows] = True
        shared = rows if code == 0 else shared
    return _Choice(kept, stands_for)


def _first(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return, for every value, where it first stands."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def _refuse_ambiguous(ids: pa.ChunkedArray, keys: _Keys, choice: _Choice) -> None:
    rows = np.flatnonzero(choice.stands_for >= 0)
    others = choice.stands_for[rows]
    clash = rows[(keys.ids[rows] == keys.ids[others]) & (keys.texts[rows] != keys.texts[others])]
    if len(clash):
        raise RagFtError(
            f"two different passages have the id {ids[int(clash[0])].as_py()} ({len(clash)} ids in all are ambiguous), "
            "so gold annotations do not say which is meant: give every passage its own id in the source's data."
        )


def _aliases(ids: pa.ChunkedArray, keys: _Keys, choice: _Choice) -> dict[tuple[str, str], str]:
    rows = np.flatnonzero(choice.stands_for >= 0)
    rows = rows[keys.ids[rows] != keys.ids[choice.stands_for[rows]]]
    dropped, kept = ids.take(pa.array(rows)).to_pylist(), ids.take(pa.array(choice.stands_for[rows])).to_pylist()
    splits = [_SPLITS[code] for code in keys.splits[rows]]
    return dict(zip(zip(splits, dropped, strict=True), kept, strict=True))


def _write(raw: Path, target: Path, wanted: np.ndarray[Any, Any]) -> int:
    with (
        atomic_path(target) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, PASSAGE_SCHEMA) as writer,
    ):
        for table in _chosen(raw, wanted) if wanted.any() else ():
            writer.write_table(table, max_chunksize=BATCH_ROWS)
    return int(wanted.sum())


def _chosen(raw: Path, wanted: np.ndarray[Any, Any]) -> Iterator[pa.Table]:
    start = 0
    for batch in pq.ParquetFile(raw).iter_batches(batch_size=_READ):
        mask = wanted[start : start + batch.num_rows]
        start += batch.num_rows
        if mask.any():
            yield pa.Table.from_batches([batch.filter(pa.array(mask))]).select(PASSAGE_SCHEMA.names)
