"""Prompts as chat messages where the tokenizer is not at hand: behind a server. The words are the renderer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_builders.records import Passage
from rag_ft.prompting.contract import PromptContract
from rag_ft.prompting.frame import ChatFrame
from rag_ft.prompting.neutralise import Neutralise, breaking, breaking_lookalikes
from rag_ft.prompting.render import render_safe_prompt
from rag_ft.prompting.settings import PromptSettings


@dataclass(frozen=True)
class MessageWriter:
    """Writes what `Encoder.messages` writes.

    Attributes:
        settings: how prompts are rendered.
        frame: only its system role, and what joins system text and question without one, are known.
        neutralise: takes the power of control tokens from a text.
    """

    settings: PromptSettings
    frame: ChatFrame
    neutralise: Neutralise

    def messages(self, question: str, passages: Sequence[Passage]) -> list[dict[str, str]]:
        """Return the prompt for a question over passages."""
        prompt = render_safe_prompt(question, passages, self.settings, self.neutralise)
        return self.frame.messages(prompt.system, prompt.user)


def message_writer(settings: PromptSettings, contract: PromptContract | None) -> MessageWriter:
    """Return the writer for weights that have a contract; without one, whatever looks like a token is broken.

    Args:
        settings: of the prompts; the contract's own, or another style of them.
        contract: its `chat` says what is known of the tokenizer.
    """
    chat = contract.chat if contract else {}
    tokens = chat.get("control_tokens")
    known = isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)
    frame = ChatFrame("", str(chat.get("between", "\n")), "", "", "", chat.get("system_role") is not False)
    return MessageWriter(settings, frame, breaking(tokens or ()) if known else breaking_lookalikes())
