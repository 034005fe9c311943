"""Prompt segments and target spans as token ids, tokenised one by one and joined. No tensors, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from data_builders.errors import RagFtError
from data_builders.records import Label, Passage
from rag_ft.prompting.frame import ChatFrame, chat_frame
from rag_ft.prompting.neutralise import control_tokens, neutraliser
from rag_ft.prompting.render import Prompt, Span, render_prompt, render_safe_prompt, render_target
from rag_ft.prompting.settings import PromptSettings, Style

Ids = tuple[int, ...]

CACHED = 50_000
"""Texts whose ids are kept."""


@dataclass(frozen=True)
class EncodedSpan:
    """A named part of the target as token ids."""

    name: str
    ids: Ids


class Encoder:
    """Turns questions, contexts and labels into token ids for one tokenizer and one prompt contract.

    The head, each passage and the question are segments: what two prompts share at their start is the same
    run of segments, so that it needs to be computed once (prefix sharing, shared contexts).
    """

    def __init__(self, tokenizer: Any, settings: PromptSettings, template_kwargs: dict[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.template_kwargs = template_kwargs
        self.frame: ChatFrame = chat_frame(tokenizer, template_kwargs)
        self._neutralise = neutraliser(tokenizer)
        self._cache: dict[tuple[str, str], Ids] = {}
        self._controls = control_tokens(tokenizer)
        self._spaced = self._behind("\n", self.tokenise("\nx")) != self.tokenise("x")
        self.end_text: str = self._end_of_turn()
        [self.end] = self.parts([self.end_text], before="an answer")

    def styled(self, style: Style) -> Encoder:
        """Return this encoder for another style of prompt and target; what was tokenised is shared."""
        if style == self.settings.style:
            return self
        other = copy(self)
        other.settings = self.settings.model_copy(update={"style": style})
        return other

    def safe(self, text: str) -> str:
        """Return text from outside without the power of control tokens."""
        return self._neutralise(text)

    def prompt(self, question: str, passages: Sequence[Passage]) -> tuple[Ids, ...]:
        """Return the prompt's segments: head, one for each passage, question with the generation prompt."""
        return self.parts(self.prompt_texts(question, passages))

    def prompt_texts(self, question: str, passages: Sequence[Passage]) -> tuple[str, ...]:
        """Return the text of each prompt segment; joined they are what the chat template writes."""
        prompt = self._rendered(question, passages)
        head = self.frame.before + prompt.system + self.frame.between + prompt.ahead
        segments = [head, *prompt.passages, prompt.question + self.frame.tail]
        # A template that ends in a space ("[INST] ") would have its space tokenised with what follows.
        bare = head.rstrip(" ")
        segments[0], segments[1] = bare, head[len(bare) :] + segments[1]
        return tuple(segments)

    def messages(self, question: str, passages: Sequence[Passage]) -> list[dict[str, str]]:
        """Return the same prompt as chat messages, for servers that apply the template themselves."""
        prompt = self._rendered(question, passages)
        return self.frame.messages(prompt.system, prompt.user)

    def system_text(self) -> str:
        """Return the instruction of a prompt with passages, as it stands in the model card."""
        return render_prompt("question", [Passage("", "", "text")], self.settings).system

    def target(self, label: Label) -> tuple[EncodedSpan, ...]:
        """Return the target's spans, the end-of-turn token last."""
        spans = self._target_spans(label)
        ids = self.parts([span.text for span in spans], before=self.frame.tail)
        named = [EncodedSpan(span.name, found) for span, found in zip(spans, ids, strict=True)]
        return (*named, EncodedSpan("end", self.end))

    def target_text(self, label: Label) -> str:
        """Return the text of the target, the end-of-turn token last."""
        return "".join(span.text for span in self._target_spans(label)) + self.end_text

    def _target_spans(self, label: Label) -> list[Span]:
        spans = [Span(span.name, self._neutralise(span.text)) for span in render_target(label, self.settings)]
        spans[0] = replace(spans[0], text=self.frame.lead + spans[0].text)
        return spans

    def _rendered(self, question: str, passages: Sequence[Passage]) -> Prompt:
        return render_safe_prompt(question, passages, self.settings, self._neutralise)

    def parts(self, texts: Sequence[str], before: str = "") -> tuple[Ids, ...]:
        """Tokenise the parts of one text each by itself, as they would be in the whole; new ones in one call.

        Args:
            texts: parts that follow one another.
            before: what stands ahead of the first; empty where the text begins with it.
        """
        if len(self._cache) > CACHED:
            self._cache.clear()
        keys = [(self._anchor(ahead), text) for ahead, text in zip((before, *texts), texts, strict=False)]
        new = [key for key in dict.fromkeys(keys) if key not in self._cache]
        if new:
            ids = self._tokenise_all([anchor + text for anchor, text in new])
            self._cache.update((key, self._behind(key[0], found)) for key, found in zip(new, ids, strict=True))
        return tuple(self._cache[key] for key in keys)

    def forget(self) -> None:
        """Let go of the texts whose ids are kept: what people ask a server is none of the next one's."""
        self._cache.clear()

    def _anchor(self, before: str) -> str:
        """Return what to put ahead of a part so that its tokenizer takes it for the middle of a text.

        Only tokenizers of the Llama 2 kind need it, which put a space in front of every text; some also behind every
        control token.
        """
        if not self._spaced or not before:
            return ""
        return next((token for token in self._controls if before.endswith(token)), "\n")

    def _behind(self, anchor: str, ids: Ids) -> Ids:
        return ids[len(self.tokenise(anchor)) :] if anchor else ids

    def _tokenise_all(self, texts: Sequence[str]) -> list[Ids]:
        found = self.tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [tuple(ids) for ids in found]

    def tokenise(self, text: str) -> Ids:
        """Tokenise as it stands: the chat template has written every special token there is to be."""
        return tuple(self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"])

    def _end_of_turn(self) -> str:
        """Return what the template writes from the end of the answer to its first control token, that included."""
        ends = [self.frame.end.find(token) + len(token) for token in self._controls if token in self.frame.end]
        if ends:
            return self.frame.end[: min(ends)]
        raise RagFtError(
            "the chat template writes no end-of-turn token after an answer, so the model could never learn to stop: "
            f"it ends with {self.frame.end!r}. Set model.chat_template to one that does: chatml or plain."
        )
