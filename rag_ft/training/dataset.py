"""The rows of a stage: read, fitted to length, tokenised, counted. Knows no trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_builders.errors import RagFtError
from data_builders.records import ContextRow
from data_builders.tables import read_context_rows
from rag_ft.prompting.encode import Encoder
from rag_ft.recipe.settings import Recipe
from rag_ft.training.fit import fit_row
from rag_ft.training.rows import TokenRow
from rag_ft.training.stages import Stage

MAX_DROPPED_SHARE = 0.01


@dataclass(frozen=True)
class TrainingRows:
    """Rows that fit, as read and as tokens, and what was left out."""

    rows: list[ContextRow]
    tokens: list[TokenRow]
    counts: dict[str, int]


def stage_rows(recipe: Recipe, stage: Stage, path: Path, encoder: Encoder) -> TrainingRows:
    """Return the rows that a stage trains on."""
    return token_rows(path, encoder, recipe.training.max_length, stage.spans)


def token_rows(path: Path, encoder: Encoder, max_length: int, spans: tuple[str, ...]) -> TrainingRows:
    """Read labelled rows, fit them to `max_length` and tokenise them; only `spans` carry loss.

    Raises:
        RagFtError: more than 1 % of the rows are too long even without negatives.
    """
    rows, tokens = [], []
    counts = {"rows": 0, "questions": 0, "dropped_passages": 0, "dropped_questions": 0, "dropped_rows": 0}
    for row in read_context_rows(path):
        if not row.questions:
            continue
        fitted = fit_row(row, encoder, max_length, spans)
        if fitted is None:
            counts["dropped_rows"] += 1
            continue
        rows.append(fitted.row)
        tokens.append(fitted.tokens)
        counts["rows"] += 1
        counts["questions"] += len(fitted.row.questions)
        counts["dropped_passages"] += fitted.dropped_passages
        counts["dropped_questions"] += fitted.dropped_questions
    total = counts["rows"] + counts["dropped_rows"]
    if counts["dropped_rows"] > MAX_DROPPED_SHARE * total:
        raise RagFtError(
            f"{counts['dropped_rows']} of {total} rows are longer than training.max_length={max_length} even without "
            "negatives. Raise training.max_length, or split passages into shorter ones."
        )
    return TrainingRows(rows, tokens, counts)


def about_rows(rows: TrainingRows) -> Iterator[str]:
    """Yield lines that say how many rows there are and what was left out."""
    counts = rows.counts
    yield f"rows: {counts['rows']} contexts with {counts['questions']} questions"
    if counts["dropped_passages"] or counts["dropped_questions"] or counts["dropped_rows"]:
        yield (
            f"to fit the length: {counts['dropped_passages']} negatives, {counts['dropped_questions']} questions and "
            f"{counts['dropped_rows']} rows were left out (training.max_length)"
        )
