"""General chat rows: read, checked, drawn, fitted to length, tokenised. Every answer and its end of turn carry loss."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.files import seeded
from data_builders.sources.rows import BadRow, json_rows, rows_of, shown, split_files, text_of
from rag_ft.prompting.encode import EncodedSpan, Encoder, Ids
from rag_ft.prompting.render import Span
from rag_ft.training.rows import IGNORED, TokenRow
from rag_ft.training.settings import ChatSettings

STYLE = "chat"
_KEY = "training.chat.path"
_EXAMPLES = {
    "messages": {"messages": [{"role": "user", "content": "A colour?"}, {"role": "assistant", "content": "Blue."}]},
    "question": {"question": "A colour?", "answer": "Blue."},
    "instruction": {"instruction": "Name a colour.", "input": "Not red.", "output": "Blue."},
}


@dataclass(frozen=True)
class Conversation:
    """What a user and an assistant said in turn.

    Attributes:
        id: file and row number.
        system: the instruction ahead of it, empty for none.
        turns: (the user's words, the assistant's answer), one pair or more.
        last_only: only the last answer carries loss, because the chat template writes earlier ones differently.
    """

    id: str
    system: str
    turns: tuple[tuple[str, str], ...]
    last_only: bool = False


@dataclass(frozen=True)
class FittedChat:
    """A conversation that fits, and how many of its oldest turns were left out."""

    tokens: TokenRow
    conversation: Conversation
    dropped_turns: int


# reading


def read_conversations(path: str | Sequence[str]) -> Iterator[Conversation]:
    """Stream the conversations of JSON Lines, JSON (plain or .gz) and Parquet files; `path` may hold `*`.

    Raises:
        RagFtError: a file is missing or unreadable, or a row is no conversation.
    """
    for _, file in split_files(path, _KEY):
        rows = _parquet_rows(file) if file.suffix == ".parquet" else json_rows(file)
        for number, row in enumerate(rows, start=1):
            try:
                yield conversation_of(row, f"{file.name}:{number}")
            except BadRow as error:
                right = json.dumps(_EXAMPLES[_kind(row)], ensure_ascii=False)
                raise RagFtError(
                    f"{file}, row {number}: {error.field} {error.problem}. A right row is, for example: {right} "
                    f"Mend the row or take it out of {_KEY}."
                ) from error


def _parquet_rows(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=500):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise RagFtError(f"cannot read {path} of {_KEY}: {reason}. Download or write it again.") from error


def _kind(row: Any) -> str:
    """Return which form a row has by the fields it holds; a row of none should have `messages`."""
    held = {name for name, value in row.items() if value is not None} if isinstance(row, dict) else set()
    if "messages" in held:
        return "messages"
    if held & {"question", "answer"}:
        return "question"
    return "instruction" if held & {"instruction", "output"} else "messages"


def conversation_of(row: Any, id_: str) -> Conversation:
    """Make a conversation of a row: `messages`; `question` and `answer`; or `instruction`, `input` and `output`.

    Raises:
        BadRow: the row is none of these, or a text in it is missing or empty.
    """
    if not isinstance(row, dict):
        raise BadRow("the row", f"is {shown(row)}, not an object with fields")
    kind = _kind(row)
    if kind == "messages":
        return _of_messages(rows_of(row, "messages"), id_)
    system = text_of(row, "system").strip() if row.get("system") is not None else ""
    if kind == "question":
        return Conversation(id_, system, ((_words(row, "question"), _words(row, "answer")),))
    more = text_of(row, "input").strip() if row.get("input") is not None else ""
    asked = "\n\n".join(filter(None, [_words(row, "instruction"), more]))
    return Conversation(id_, system, ((asked, _words(row, "output")),))


def _of_messages(messages: list[dict[str, Any]], id_: str) -> Conversation:
    """Roles are an optional system first, then user and assistant by turns, the assistant's last."""
    first = 1 if messages and messages[0].get("role") == "system" else 0
    system = _content(messages, 0) if first else ""
    said = []
    for number in range(first, len(messages)):
        expected = ("user", "assistant")[(number - first) % 2]
        if messages[number].get("role") != expected:
            raise BadRow(f"messages.{number}.role", f"is {shown(messages[number].get('role'))}, not {expected}")
        said.append(_content(messages, number))
    if not said or len(said) % 2:
        raise BadRow("messages", "does not end with an answer of the assistant")
    return Conversation(id_, system, tuple(zip(said[::2], said[1::2], strict=True)))


def _content(messages: list[dict[str, Any]], number: int) -> str:
    try:
        return _words(messages[number], "content")
    except BadRow as error:
        raise BadRow(f"messages.{number}.content", error.problem) from error


def _words(row: dict[str, Any], field: str) -> str:
    """Return a text without white space around it, which some templates cut and some keep."""
    text = text_of(row, field).strip()
    if not text:
        raise BadRow(field, "is empty")
    return text


# drawing


def wanted_rows(share: float, contexts: int) -> int | None:
    """Return how many chat rows make up `share` of all beside `contexts` other rows; None means all there are."""
    return None if share == 1 else round(contexts * share / (1 - share))


def drawn_conversations(settings: ChatSettings, wanted: int | None, seed: int, encoder: Encoder) -> list[Conversation]:
    """Return `wanted` conversations drawn by seed and row, fewer where there are fewer; all in order for None.

    Raises:
        RagFtError: see `read_conversations`; or the chat template cannot write a conversation.
    """
    found = _as_trained(read_conversations(settings.path), encoder)
    if wanted is None:
        return list(found)
    return heapq.nsmallest(wanted, found, key=lambda one: seeded(seed, "chat", one.id).random())


def _as_trained(conversations: Iterator[Conversation], encoder: Encoder) -> Iterator[Conversation]:
    """Make a row of each answer where the template writes earlier answers differently from the last.

    Templates of thinking models take the thoughts of earlier answers away, and some move the system message.
    """
    keeps = {system: _keeps_earlier_turns(encoder, system) for system in ("", "system")}
    for one in conversations:
        if len(one.turns) == 1 or keeps["system" if one.system else ""]:
            yield one
            continue
        for count in range(1, len(one.turns) + 1):
            yield Conversation(f"{one.id}.{count}", one.system, one.turns[:count], last_only=True)


def _keeps_earlier_turns(encoder: Encoder, system: str) -> bool:
    try:
        chat_spans(Conversation("", system, (("first", "one"), ("second", "two"), ("third", "three"))), encoder)
    except _OtherTextError:
        return False
    return True


# tokens


class _OtherTextError(RagFtError):
    """The template writes a conversation otherwise than turn by turn."""


def chat_spans(conversation: Conversation, encoder: Encoder) -> list[Span]:
    """Return the text of a conversation as spans `prompt`, `answer` and `end`, again and again.

    A prompt goes up to the generation prompt, an answer is what the model writes, `end` is its end of turn.

    Raises:
        RagFtError: the template's generation prompt or its earlier turns are no prefix of the whole.
    """
    end = encoder.tokenizer.decode(encoder.end, clean_up_tokenization_spaces=False)
    lead, closing = encoder.frame.lead, encoder.frame.end
    messages = _messages(conversation, encoder)
    system = len(messages) - 2 * len(conversation.turns)
    spans: list[Span] = []
    done = ""
    for turn in range(len(conversation.turns) - 1 if conversation.last_only else 0, len(conversation.turns)):
        asked = messages[: system + 2 * turn + 1]
        answer = messages[system + 2 * turn + 1]
        prompt, full = _render(asked, encoder, True), _render([*asked, answer], encoder, False)
        text = lead + answer["content"]
        if not prompt.startswith(done) or full != prompt + text + closing or not closing.startswith(end):
            raise _OtherTextError(
                f"chat row {conversation.id}: the chat template does not write answer {turn + 1} as the model would "
                f"continue its prompt. Take such rows out of {_KEY}, or set model.weights to a model with a plain "
                "chat template."
            )
        spans += [Span("prompt", prompt[len(done) :]), Span("answer", text), Span("end", end)]
        done = prompt + text + end
    return spans


def _messages(conversation: Conversation, encoder: Encoder) -> list[dict[str, str]]:
    said = [encoder.safe(text) for turn in conversation.turns for text in turn]
    roles = ("user", "assistant") * len(conversation.turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    if not conversation.system:
        return messages
    opening = encoder.frame.messages(encoder.safe(conversation.system), said[0])
    return [*opening, *messages[1:]]


def _render(messages: list[dict[str, str]], encoder: Encoder, prompt: bool) -> str:
    try:
        text = encoder.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt, **encoder.template_kwargs
        )
    except Exception as error:  # a template refuses in its own words, with its own exception
        raise _OtherTextError(
            f"the chat template cannot write a chat row: {error}. Take such rows out of {_KEY}."
        ) from error
    return str(text)


def encoded_chat(conversation: Conversation, encoder: Encoder) -> list[EncodedSpan]:
    """Return the spans of a conversation as token ids; each ends where a control token or an answer begins."""
    spans = chat_spans(conversation, encoder)
    ids = encoder.parts([span.text for span in spans])
    return [
        EncodedSpan(span.name, encoder.end if span.name == "end" else found)
        for span, found in zip(spans, ids, strict=True)
    ]


def encode_chat(conversation: Conversation, encoder: Encoder) -> TokenRow:
    """Tokenise a conversation. Answers and their ends of turn carry loss; of prompts nothing does."""
    spans = encoded_chat(conversation, encoder)
    ids: list[int] = []
    labels: list[int] = []
    for span in spans:
        ids += span.ids
        labels += [IGNORED] * len(span.ids) if span.name == "prompt" else span.ids
    first = len(spans[0].ids)
    return TokenRow(conversation.id, tuple(ids), tuple(labels), (first, len(ids) - first), STYLE)


def fit_chat(conversation: Conversation, encoder: Encoder, max_length: int) -> FittedChat | None:
    """Leave out the oldest turns, question with answer, until `max_length` tokens or fewer are left.

    Returns None where the last turn alone is too long; nothing is cut.
    """
    turns = conversation.turns
    for dropped in range(len(turns)):
        shorter = replace(conversation, turns=turns[dropped:])
        tokens = encode_chat(shorter, encoder)
        if len(tokens.input_ids) <= max_length:
            return FittedChat(tokens, shorter, dropped)
    return None


def chat_texts(conversation: Conversation, encoder: Encoder) -> Iterator[tuple[str, Ids, str]]:
    """Yield (what it is, its ids joined from spans, its text as the template writes it at once) of a conversation."""
    ids = tuple(token for span in encoded_chat(conversation, encoder) for token in span.ids)
    whole = _render(_messages(conversation, encoder), encoder, False)
    end = encoder.tokenizer.decode(encoder.end, clean_up_tokenization_spaces=False)
    yield "the conversation", ids, whole[: len(whole) - len(encoder.frame.end)] + end
