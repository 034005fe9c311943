"""Rankings made elsewhere: TREC run files of any engine, and what the sources' own files carry. Searches nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_builders.corpus import Corpus
from data_builders.errors import RagFtError
from data_builders.files import file_hash
from data_builders.retrievers import Found, Query
from data_builders.retrievers.fusion import reciprocal_rank_fusion
from data_builders.retrievers.saved_rankings import Collected, SavedRankings, save_rankings
from data_builders.retrievers.settings import SourceRankingSettings, TrecRunSettings
from data_builders.sources.rows import shown, split_files, text_lines

TREC_EXAMPLE = "question-17 Q0 passage-42 1 23.75 my-engine"
_COLUMNS = re.compile(r"[^ \t]+")
_LINES = 200_000  # lines looked up in the corpus at once
_LISTS = 10_000


class TrecRun:
    """The run files of another engine, `question Q0 passage rank score tag`, with the ids that the sources give.

    As in trec_eval the score decides, not the rank column. Equal scores are ordered by rank, then by position in the
    corpus (trec_eval: by descending passage id), so that a run whose scores say nothing keeps its engine's order.
    """

    parallel = True

    def __init__(self, settings: TrecRunSettings) -> None:
        self._settings = settings
        self._saved: SavedRankings | None = None

    def _files(self) -> list[Path]:
        return [path for _, path in split_files(self._settings.path, "data.retrievers.path (kind: trec_run)")]

    def index_settings(self) -> dict[str, Any]:
        """Return the hashes of the run files, in order.

        Raises:
            RagFtError: a file is missing.
        """
        return {"kind": self._settings.kind, "files": [file_hash(path) for path in self._files()]}

    def build(self, corpus: Corpus, folder: Path, report: Callable[[str], None]) -> None:
        """Read the run files and save, by question, the positions of the passages that are in `corpus`.

        Raises:
            RagFtError: a file cannot be read, or a line is not one of a run.
        """
        collected = Collected(corpus)
        for path in self._files():
            rows = _run_lines(path)
            while block := list(islice(rows, _LINES)):
                questions, passages, ranks, scores = zip(*block, strict=True)
                collected.add(questions, passages, rank=ranks, score=scores)
        rows_by_question = collected.by_question(by_score=True)
        save_rankings(folder, ((name, Found(rows["position"], rows["score"])) for name, rows in rows_by_question))
        report(collected.summary(self._settings.name or self._settings.kind))

    def open(self, corpus: Corpus, folder: Path) -> None:
        """Map the saved rankings."""
        self._saved = SavedRankings(folder)

    def search(self, queries: Sequence[Query], depth: int) -> list[Found]:
        """Return the first `depth` passages of each question by its id; nothing for a question the run lacks."""
        return [] if self._saved is None else self._saved.search(queries, depth)


def _run_lines(path: Path) -> Iterator[tuple[str, str, int, float]]:
    """Yield question, passage, rank and score of every line that is not empty.

    Columns are cut by tabs where that makes six (ids may hold spaces then), else by any white space.
    """
    for number, line in enumerate(text_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 6:
            columns = _COLUMNS.findall(line)
        if not columns:
            continue
        problem = _problem(columns)
        if problem:
            raise RagFtError(
                f"{path}, line {number}: {problem}. A line of a TREC run is, for example: {TREC_EXAMPLE} "
                "(question id, Q0, passage id, rank, score, tag). Mend the line or write the run again."
            )
        yield columns[0], columns[2], int(columns[3]), float(columns[4])


def _problem(columns: Sequence[str]) -> str | None:
    if len(columns) != 6:
        hint = "; cut them by tabs if an id holds spaces" if len(columns) > 6 else ""
        return f"it has {len(columns)} columns instead of 6{hint}"
    try:
        if abs(int(columns[3])) >= 1 << 31:
            return f"the rank {shown(columns[3])} is too large"
    except ValueError:
        return f"the rank is {shown(columns[3])}, not a whole number"
    try:
        return None if isfinite(float(columns[4])) else f"the score is {shown(columns[4])}, not a finite number"
    except ValueError:
        return f"the score is {shown(columns[4])}, not a number"


class SourceRanking:
    """What the sources' own files rank (`ctxs` of DPR and the like), in the order they give.

    With several retrievers in the file, `name` chooses one; without a name, the rankings of a question are fused by
    reciprocal rank (k = 60).

    Args:
        settings: the retriever's section of the recipe.
        path: the rankings that the importers wrote (`RANKING_SCHEMA`).
    """

    parallel = True

    def __init__(self, settings: SourceRankingSettings, path: Path) -> None:
        self._settings, self._path = settings, path
        self._saved: SavedRankings | None = None

    def index_settings(self) -> dict[str, Any]:
        """Return the name that is chosen and the hash of the rankings."""
        return {"kind": self._settings.kind, "name": self._settings.name, "file": file_hash(self._path)}

    def build(self, corpus: Corpus, folder: Path, report: Callable[[str], None]) -> None:
        """Save, by question, the positions of the ranked passages that are in `corpus`.

        Raises:
            RagFtError: the sources carry no rankings, or none of this name.
        """
        chosen, collected = self._chosen(), Collected(corpus)
        for batch in pq.ParquetFile(self._path).iter_batches(batch_size=_LISTS):
            _collect(batch, chosen, collected)
        rows_by_question = collected.by_question(by_score=False)
        save_rankings(folder, ((name, _fused(rows)) for name, rows in rows_by_question))
        report(collected.summary(self._settings.name or ", ".join(chosen)))

    def _chosen(self) -> list[str]:
        """Return the names of the retrievers whose rankings are read."""
        names = sorted(pc.unique(pq.read_table(self._path, columns=["retriever"])["retriever"]).to_pylist())
        if not names:
            raise RagFtError(
                "data.retrievers: kind: source asks for rankings of the sources' own, but none of data.sources "
                "carries any. Use kind: bm25, dense or trec_run instead."
            )
        wanted = self._settings.name
        if wanted in names:
            return [wanted]
        if wanted and len(names) > 1:
            raise RagFtError(
                f"data.retrievers: kind: source with name: {wanted}, but the sources carry rankings by "
                f"{', '.join(names)}. Set name to one of these, or leave it out to fuse them."
            )
        return names

    def open(self, corpus: Corpus, folder: Path) -> None:
        """Map the saved rankings."""
        self._saved = SavedRankings(folder)

    def search(self, queries: Sequence[Query], depth: int) -> list[Found]:
        """Return the first `depth` passages of each question by its id; nothing for a question without ranking."""
        return [] if self._saved is None else self._saved.search(queries, depth)


def _collect(batch: Any, chosen: Sequence[str], collected: Collected) -> None:
    """Add a batch of rankings, one row per passage."""
    numbers = pc.index_in(batch["retriever"], value_set=pa.array(chosen, pa.string()))
    batch, numbers = batch.filter(numbers.is_valid()), numbers.drop_null().to_numpy()
    lengths = pc.list_value_length(batch["passages"]).to_numpy()
    owner = np.repeat(np.arange(len(lengths)), lengths)
    collected.add(
        batch["question"].take(owner).to_pylist(),
        batch["passages"].flatten().to_pylist(),
        rank=np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1,
        score=batch["scores"].flatten().to_numpy(),
        retriever=numbers[owner],
    )


def _fused(rows: np.ndarray[Any, Any]) -> Found:
    """Return one question's ranking; `rows` are sorted by retriever."""
    borders = [0, *(np.flatnonzero(np.diff(rows["retriever"])) + 1), len(rows)]
    lists = [Found(rows["position"][low:high], rows["score"][low:high]) for low, high in pairwise(borders)]
    return lists[0] if len(lists) == 1 else reciprocal_rank_fusion({str(n): one for n, one in enumerate(lists)})
