"""What the data of a run offer beside each question's own pool: other questions, documents, retrievers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from data_builders.errors import RagFtError
from data_builders.mapped import map_table
from data_builders.paths import data_paths
from data_builders.records import Pool, PoolPassage
from data_builders.text import contains_answer
from rag_ft.evaluation.conditions import conditions
from rag_ft.evaluation.contexts import Surroundings
from rag_ft.evaluation.counterfactual import Plants
from rag_ft.evaluation.settings import EvaluationSettings
from rag_ft.evaluation.suites import Offer

Documents = dict[str, tuple[PoolPassage, ...]]


def offer_of(pools: Sequence[Pool], data: Path, depth: int) -> Offer:
    """Return what the pools of a split have to show.

    Args:
        pools: every pool of the split.
        data: the data folder of the run.
        depth: `data.depth`; a pool that several retrievers fill holds more, but no count goes beyond it.
    """
    most = max((sum(passage.rank > 0 for passage in pool.passages) for pool in pools), default=0)
    found = (place.retriever for pool in pools for passage in pool.passages for place in passage.found)
    named = any(_names_documents(path) for path in data_paths(data).searched("test"))
    return Offer(min(most, depth), tuple(sorted(dict.fromkeys(found))), named)


def surroundings_of(settings: EvaluationSettings, pools: Sequence[Pool], data: Path, seed: int) -> Surroundings:
    """Gather what composing the conditions of an evaluation needs.

    Args:
        settings: the grid.
        pools: every pool of the split, also of questions that are not asked.
        data: the data folder of the run.
        seed: of the recipe.

    Raises:
        RagFtError: a sweep asks for a retriever that found nothing in any pool.
    """
    wanted = conditions(settings)
    _check_retrievers({one.retriever for one in wanted if one.retriever}, pools)
    documented = any(one.gold == "full_document" for one in wanted)
    return Surroundings(
        seed=seed,
        others=pools,
        documents=documents_of(pools, data_paths(data).searched("test")) if documented else {},
        plants=Plants.of(pools),
    )


def _check_retrievers(wanted: set[str], pools: Iterable[Pool]) -> None:
    if not wanted:
        return
    known = {place.retriever for pool in pools for passage in pool.passages for place in passage.found}
    for name in sorted(wanted - known):
        raise RagFtError(
            f'evaluation.sweeps asks for retriever "{name}", but the pools of the test split hold nothing that it '
            f"found; they hold what {', '.join(sorted(known)) or 'no retriever'} found. Name one of these, or see "
            "data.retrievers."
        )


def _names_documents(path: Path) -> bool:
    return bool(pc.any(pc.not_equal(map_table(path)["document"], "")).as_py())


def documents_of(pools: Iterable[Pool], files: Sequence[Path]) -> Documents:
    """Return, by question id, the passages of the documents that its gold was cut from, in the order of the files.

    Questions whose gold names no document have none.
    """
    table = pa.concat_tables([map_table(path) for path in files])
    pools = list(pools)
    gold = {pool.id: [passage for passage in pool.passages if passage.is_gold] for pool in pools}
    annotated = {pool.id: {one.id: one for one in pool.passages if one.is_gold or one.is_alternative} for pool in pools}
    by_id = _documents_by_passage(table, {passage.id for passages in gold.values() for passage in passages})
    texts = _passages_by_document(table, set(by_id.values()))
    answers = {pool.id: pool.answers for pool in pools}
    found: Documents = {}
    for question, passages in gold.items():
        names = dict.fromkeys(by_id[passage.id] for passage in passages if passage.id in by_id)
        if names and all(passage.id in by_id for passage in passages):
            known = annotated[question]
            rows = [row for name in names for row in texts[name]]
            found[question] = tuple(known.get(row["id"]) or _passage(row, answers[question]) for row in rows)
    return found


def document_names(pools: Iterable[Pool], data: Path) -> dict[str, str]:
    """Return, by question id, the document that its first gold passage was cut from; one that names none is its own.

    Questions without gold are left out: they stand for themselves.
    """
    table = pa.concat_tables([map_table(path) for path in data_paths(data).searched("test")])
    first = {pool.id: gold[0] for pool in pools if (gold := [one.id for one in pool.passages if one.is_gold])}
    named = _documents_by_passage(table, set(first.values()))
    return {question: named.get(passage, passage) for question, passage in first.items()}


def _documents_by_passage(table: pa.Table, ids: set[str]) -> dict[str, str]:
    named = table.select(["id", "document"]).filter(
        pc.and_(pc.is_in(table["id"], pa.array(sorted(ids), pa.string())), pc.not_equal(table["document"], ""))
    )
    return dict(zip(named["id"].to_pylist(), named["document"].to_pylist(), strict=True))


def _passages_by_document(table: pa.Table, names: set[str]) -> dict[str, list[dict[str, str]]]:
    kept = table.filter(pc.is_in(table["document"], pa.array(sorted(names), pa.string())))
    found: dict[str, list[dict[str, str]]] = {}
    for row in kept.select(["id", "title", "text", "document"]).to_pylist():
        found.setdefault(row["document"], []).append(row)
    return found


def _passage(row: Mapping[str, str], answers: Sequence[str]) -> PoolPassage:
    holds = contains_answer(f"{row['title']}\n{row['text']}", answers)
    return PoolPassage(row["id"], row["title"], row["text"], False, holds, "document", 0, 0.0)
