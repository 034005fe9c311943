"""Untrusted text loses the power of a tokenizer's control tokens, the same way in training and in inference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

Neutralise = Callable[[str], str]

# What control tokens look like: ChatML, Llama 2 and 3, Mistral, Gemma, DeepSeek (fullwidth bars), thinking models.
_LIKE_A_TOKEN = re.compile(
    r"<[|\uff5c][^|\uff5c<>\n]{1,60}[|\uff5c]>|</?(?:s|bos|eos|pad|unk|think|start_of_turn|end_of_turn)>|<</?SYS>>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\]"
)


def control_tokens(tokenizer: Any) -> frozenset[str]:
    """Return every string the tokenizer turns into a control token.

    That is each token flagged special and each added token the chat template itself writes (`<think>` of some
    models is added, not special). White space and plain words that are merely "added" are left alone.
    """
    added = tokenizer.added_tokens_decoder.values()
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
    found = {token.content for token in added if token.special or (token.content.strip() and token.content in template)}
    found.update(tokenizer.all_special_tokens)
    return frozenset(token for token in found if token.strip())


def neutraliser(tokenizer: Any) -> Neutralise:
    """Return a function that breaks every control token in a text by a space after its first character.

    The change is in the text, not in the tokenisation, so that a server which tokenises the whole prompt
    itself sees the same ids. Everything else in the text stays as it is.
    """
    return breaking(control_tokens(tokenizer))


def breaking(tokens: Iterable[str]) -> Neutralise:
    """Return `neutraliser`'s function for the control tokens themselves."""
    known = sorted(filter(str.strip, tokens), key=len, reverse=True)
    return _breaking(re.compile("|".join(map(re.escape, known)))) if known else lambda text: text


def breaking_lookalikes() -> Neutralise:
    """Return the same for a tokenizer nobody knows, as behind a server: whatever looks like a control token."""
    return _breaking(_LIKE_A_TOKEN)


def _breaking(pattern: re.Pattern[str]) -> Neutralise:
    def neutralise(text: str) -> str:
        while pattern.search(text):
            text = pattern.sub(lambda match: _broken(match.group()), text)
        return text

    return neutralise


def _broken(token: str) -> str:
    return f"{token[0]} {token[1:]}" if len(token) > 1 else " "
