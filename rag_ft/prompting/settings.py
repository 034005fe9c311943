"""What a recipe may say about prompts. Part of the prompt contract: the hash of these travels with the adapter."""

from __future__ import annotations

from typing import Literal

from data_builders.settings import Settings

Style = Literal["answer", "reasoning", "self_reasoning"]


class PromptSettings(Settings):
    """How a question and its context become a prompt and a target."""

    style: Style = "answer"
    """What the generator writes: the answer; relevance and answer; or relevance, evidence, analysis and answer."""
    question_position: Literal["after", "before", "both"] = "after"
    """Where the question stands relative to the passages."""
    titles: bool = True
    """Show passage titles."""
    abstention: str = "The passages do not say."
    """The sentence a generator writes when no shown passage supports an answer."""
