"""The rows of a stage: read, drawn, fitted to length, tokenised, mixed with chat rows, counted. Knows no trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from data_builders.errors import RagFtError
from data_builders.files import seeded
from data_builders.mixing import mixed
from data_builders.records import ContextRow
from data_builders.tables import read_context_rows
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.prompting.settings import Style
from rag_ft.recipe.settings import Recipe
from rag_ft.training.chat import Conversation, chat_texts, drawn_conversations, fit_chat, wanted_rows
from rag_ft.training.fit import fit_row, show_at_most
from rag_ft.training.rows import TokenRow, row_texts
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.stages import Stage

MAX_DROPPED_SHARE = 0.01
DIRECT: Style = "answer"
_COUNTS = ("rows", "questions", "dropped_passages", "dropped_questions", "dropped_rows")

TrainedRow: TypeAlias = ContextRow | Conversation


@dataclass(frozen=True)
class TrainingRows:
    """Rows that fit, as read and as tokens (parallel), and what was left out."""

    rows: list[TrainedRow]
    tokens: list[TokenRow]
    counts: dict[str, int]


@dataclass(frozen=True)
class Draw:
    """Which rows of a file are trained on, and how they are shown. All is a function of seed and row id.

    Attributes:
        passages: most passages shown; None shows all.
        data_share: share of the rows; the rows of a smaller share are among those of a larger one.
        direct_share: share of the rows asked for the answer alone.
    """

    seed: int = 0
    passages: int | None = None
    data_share: float = 1.0
    direct_share: float = 0.0

    def takes(self, row: str) -> bool:
        """Tell whether the row of this id is trained on."""
        return self.data_share == 1 or seeded(self.seed, "data_share", row).random() < self.data_share

    def direct(self, row: str) -> bool:
        """Tell whether the row of this id is asked for the answer alone."""
        return seeded(self.seed, "direct_share", row).random() < self.direct_share


def needs_data(settings: TrainingSettings) -> bool:
    """Tell whether a training reads what `rag-ft build` makes; chat rows alone do not."""
    return settings.chat is None or settings.chat.share < 1


def trained_styles(settings: TrainingSettings) -> tuple[Style, ...]:
    """Return the styles that rows are trained in beside that of `model.prompt`."""
    return (DIRECT,) if settings.direct_share else ()


def draw_of(recipe: Recipe, stage: Stage) -> Draw:
    """Return how a stage draws its rows. Before the answer is trained, no row is asked for it alone."""
    direct = recipe.training.direct_share if "answer" in stage.spans else 0.0
    return Draw(recipe.seed, stage.passages, stage.data_share, direct)


def stage_rows(recipe: Recipe, stage: Stage, path: Path, encoder: Encoder) -> TrainingRows:
    """Return the rows that a stage trains on: those of the file at `path` that it draws, and its chat rows.

    Raises:
        RagFtError: too many rows are too long, none is drawn, or a chat row cannot be used.
    """
    training = recipe.training
    found = TrainingRows([], [], dict.fromkeys(_COUNTS, 0))
    if needs_data(training):
        found = token_rows(path, encoder, training.max_length, stage.spans, draw_of(recipe, stage))
        if found.counts.get("undrawn_rows") and not found.rows:
            raise RagFtError(
                f"stage {stage.name} draws none of {found.counts['undrawn_rows']} rows with "
                f"data_share={stage.data_share:g}: raise data_share in training.stages."
            )
    return found if training.chat is None else _with_chat(recipe, found, encoder)


def watched_rows(recipe: Recipe, stage: Stage, path: Path, encoder: Encoder) -> TrainingRows:
    """Return the validation rows of a stage: all of them, shown as its training rows are; no chat rows."""
    if not needs_data(recipe.training):
        return TrainingRows([], [], dict.fromkeys(_COUNTS, 0))
    draw = draw_of(recipe, stage)
    shown = Draw(draw.seed, draw.passages, direct_share=draw.direct_share)
    return token_rows(path, encoder, recipe.training.max_length, stage.spans, shown)


def token_rows(
    path: Path, encoder: Encoder, max_length: int, spans: Collection[str], draw: Draw | None = None
) -> TrainingRows:
    """Read labelled rows, draw, fit them to `max_length` and tokenise them; only `spans` carry loss.

    Raises:
        RagFtError: more than 1 % of the rows are too long even without negatives.
    """
    rows: list[TrainedRow] = []
    tokens: list[TokenRow] = []
    counts = Counter(dict.fromkeys(_COUNTS, 0))
    for row, style in drawn_rows(read_context_rows(path), draw or Draw(), encoder.settings.style, counts):
        fitted = fit_row(row, encoder.styled(style), max_length, spans)
        if fitted is None:
            counts["dropped_rows"] += 1
            continue
        rows.append(fitted.row)
        tokens.append(fitted.tokens)
        counts["rows"] += 1
        counts["questions"] += len(fitted.row.questions)
        counts["dropped_passages"] += fitted.dropped_passages
        counts["dropped_questions"] += fitted.dropped_questions
        counts["direct_rows"] += style != encoder.settings.style
    _refuse_many_too_long(counts, max_length, path)
    return TrainingRows(rows, tokens, dict(counts))


def drawn_rows(
    rows: Iterable[ContextRow], draw: Draw, style: Style, counts: Counter[str]
) -> Iterator[tuple[ContextRow, Style]]:
    """Yield the rows drawn, with the passages they show and the style they are written in; count the others."""
    for row in rows:
        if not row.questions:
            continue
        if not draw.takes(row.id):
            counts["undrawn_rows"] += 1
            continue
        shown = show_at_most(row, draw.passages)
        counts["unshown_passages"] += len(row.passages) - len(shown.passages)
        counts["rows_of_more_gold"] += draw.passages is not None and len(shown.passages) > draw.passages
        yield shown, DIRECT if draw.direct(row.id) else style


def _refuse_many_too_long(counts: Counter[str], max_length: int, path: Path) -> None:
    total = counts["rows"] + counts["dropped_rows"]
    if counts["dropped_rows"] > MAX_DROPPED_SHARE * total:
        raise RagFtError(
            f"{counts['dropped_rows']} of {total} rows of {path.name} are longer than training.max_length={max_length} "
            "even without negatives. Raise training.max_length, or split passages into shorter ones."
        )


def _with_chat(recipe: Recipe, contexts: TrainingRows, encoder: Encoder) -> TrainingRows:
    """Return the rows with chat rows spread evenly among them, which also an ordered training sees all along."""
    chat = recipe.training.chat
    assert chat is not None
    wanted = wanted_rows(chat.share, len(contexts.rows))
    drawn = drawn_conversations(chat, wanted, recipe.seed, encoder)
    fitted = [fit_chat(one, encoder, recipe.training.max_length) for one in drawn]
    kept = [one for one in fitted if one is not None]
    if drawn and not kept:
        raise RagFtError(
            f"all {len(drawn)} chat rows are longer than training.max_length={recipe.training.max_length}. Raise it, "
            "or name shorter rows in training.chat.path."
        )
    counts = {
        "chat_rows": len(kept),
        "chat_rows_wanted": len(drawn) if wanted is None else wanted,
        "dropped_chat_rows": len(drawn) - len(kept),
        "dropped_chat_turns": sum(one.dropped_turns for one in kept),
    }
    chats: Sequence[tuple[TrainedRow, TokenRow]] = [(one.conversation, one.tokens) for one in kept]
    parts = [part for part in (list(zip(contexts.rows, contexts.tokens, strict=True)), chats) if part]
    pairs = list(mixed((len(part), part) for part in parts))
    return TrainingRows([row for row, _ in pairs], [tokens for _, tokens in pairs], {**contexts.counts, **counts})


def row_as_text(row: TrainedRow, style: str, encoder: Encoder) -> Iterator[tuple[str, Ids, str]]:
    """Yield (what it is, ids joined from segments, text) for a row written in `style` (see TokenRow)."""
    if isinstance(row, Conversation):
        return chat_texts(row, encoder)
    return row_texts(row, encoder.styled(DIRECT) if style == DIRECT else encoder)


def about_rows(rows: TrainingRows) -> Iterator[str]:
    """Yield lines that say how many rows there are and what was left out."""
    counts = Counter(rows.counts)
    if counts["rows"] or not counts["chat_rows"]:
        yield f"rows: {counts['rows']} contexts with {counts['questions']} questions"
    if counts["undrawn_rows"]:
        yield f"drawn: {counts['undrawn_rows']} rows are left to other stages (data_share)"
    if counts["unshown_passages"] or counts["rows_of_more_gold"]:
        yield (
            f"shown: {counts['unshown_passages']} negatives were left out; {counts['rows_of_more_gold']} rows show "
            "more than asked for, which they need (passages)"
        )
    if counts["direct_rows"]:
        yield f"hybrid: {counts['direct_rows']} rows are asked for the answer alone (training.direct_share)"
    if counts["dropped_passages"] or counts["dropped_questions"] or counts["dropped_rows"]:
        yield (
            f"to fit the length: {counts['dropped_passages']} negatives, {counts['dropped_questions']} questions and "
            f"{counts['dropped_rows']} rows were left out (training.max_length)"
        )
    yield from _about_chat(counts)


def _about_chat(counts: Counter[str]) -> Iterator[str]:
    if "chat_rows" not in counts:
        return
    share = counts["chat_rows"] / max(1, counts["rows"] + counts["chat_rows"])
    line = f"chat: {counts['chat_rows']} rows, {100 * share:.1f} % of all"
    missing = counts["chat_rows_wanted"] - counts["chat_rows"] - counts["dropped_chat_rows"]
    if missing > 0:
        line += f"; there are no more, {missing} fewer than training.chat.share asks for"
    yield line
    if counts["dropped_chat_rows"] or counts["dropped_chat_turns"]:
        yield (
            f"to fit the length: {counts['dropped_chat_turns']} oldest turns of chat rows and "
            f"{counts['dropped_chat_rows']} chat rows were left out (training.max_length)"
        )
