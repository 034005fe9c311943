"""What a chat template writes around our text, taken from the template once per tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from data_builders.errors import RagFtError

_SYSTEM, _USER, _ASSISTANT = "ragftsystemslot", "ragftuserslot", "ragftassistantslot"


@dataclass(frozen=True)
class ChatFrame:
    """The fixed text of a chat prompt.

    `before + SYSTEM + between + USER + tail` is the prompt with the generation prompt at its end;
    `lead + ASSISTANT + end` continues it. Without a system role, or with one
    that is forgotten in the next turn, the system text is put in front of the user's.
    """

    before: str
    between: str
    tail: str
    lead: str
    end: str
    system_role: bool

    def messages(self, system: str, user: str) -> list[dict[str, str]]:
        """Return chat messages as any OpenAI-compatible server takes them."""
        if self.system_role:
            return [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return [{"role": "user", "content": f"{system}{self.between}{user}"}]


def chat_frame(tokenizer: Any, template_kwargs: dict[str, Any]) -> ChatFrame:
    """Read the frame off the tokenizer's chat template.

    Raises:
        RagFtError: the tokenizer has no chat template, or the template does not write the messages it is given
            word for word, or its generation prompt is not how a full conversation goes on.
    """
    if not tokenizer.chat_template:
        raise RagFtError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template, so no prompt can be written for it. "
            "Set model.weights to an instruction-tuned model, or model.chat_template=plain to train a base model."
        )
    prompt, full, system_role = _render(tokenizer, template_kwargs)
    if not full.startswith(prompt):
        raise RagFtError(
            "the chat template's generation prompt is not a prefix of a full conversation, so the model would be "
            f"trained on another prompt than it is asked with: {_first_difference(prompt, full)}. Set "
            "model.chat_template_kwargs, for example {enable_thinking: false}."
        )
    lead, end = _split(full[len(prompt) :], _ASSISTANT)
    if system_role:
        before, rest = _split(prompt, _SYSTEM)
        between, tail = _split(rest, _USER)
        return ChatFrame(before, between, tail, lead, end, True)
    before, tail = _split(prompt, _USER)
    return ChatFrame(before, "\n", tail, lead, end, False)


def _render(tokenizer: Any, template_kwargs: dict[str, Any]) -> tuple[str, str, bool]:
    user, assistant = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ASSISTANT}

    def both(*messages: dict[str, str]) -> tuple[str, str]:
        prompt = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, **template_kwargs
        )
        full = tokenizer.apply_chat_template([*messages, assistant], tokenize=False, **template_kwargs)
        return prompt, full

    try:
        prompt, full = both({"role": "system", "content": _SYSTEM}, user)
    except Exception:  # a template says in its own words, with its own exception, that it knows no system role
        return (*both(user), False)
    # Mistral Nemo's writes the system text with the last question and drops it once that is answered.
    if prompt.count(_SYSTEM) == full.count(_SYSTEM) == 1 and prompt.index(_SYSTEM) < prompt.index(_USER):
        return prompt, full, True
    return (*both(user), False)


def _split(text: str, slot: str) -> tuple[str, str]:
    if text.count(slot) != 1:
        raise RagFtError(
            f"the chat template writes a message {text.count(slot)} times instead of once; it cannot be used for "
            "training. Set model.weights to a model with a plain chat template."
        )
    before, _, after = text.partition(slot)
    return before, after


def _first_difference(one: str, other: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"{one[at : at + 40]!r} against {other[at : at + 40]!r} at character {at}"
