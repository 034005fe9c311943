"""What a recipe may say about questions that a teacher writes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_builders.servers.settings import TeacherSettings
from data_builders.settings import Settings

_Words = Annotated[int, Field(ge=1)]


class QuestionLengthsSettings(Settings):
    """Bounds in words; a Chinese character or kana counts as one."""

    least_question: _Words = 3
    """Shortest question."""
    most_question: _Words = 50
    """Longest question."""
    most_answer: _Words = 12
    """Longest answer: a name, a number, a few words."""
    least_quote: _Words = 3
    """Shortest quote."""
    most_quote: _Words = 80
    """Longest quote."""

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        for what, least, most in (
            ("question", self.least_question, self.most_question),
            ("quote", self.least_quote, self.most_quote),
        ):
            if least > most:
                raise ValueError(
                    f"least_{what} {least} is more than most_{what} {most}, so that none is kept; lower least_{what}"
                )
        return self


class FiltersSettings(Settings):
    """Which questions are kept; the others are counted, with examples, and listed in rejected.jsonl.

    That quote and answer stand in the passage is always asked for.
    """

    lengths: QuestionLengthsSettings | None = QuestionLengthsSettings()
    """Bounds; null sets none."""
    self_contained: bool = True
    """The question makes sense without the passage: no "in the text above", no pronoun that stands for nothing
    (English and Korean)."""
    unsaid: bool = True
    """The answer does not stand in the question."""
    near_duplicate: Annotated[float, Field(ge=0.8, le=1)] | None = 0.8
    """Questions with the same answer that share this much of their words (Jaccard) are one; null compares whole
    wordings only."""
    elsewhere: Literal["reject", "alternative", "keep"] = "reject"
    """Where another passage found for the question holds the answer: leave the question out, note the passage as one
    that supports the answer too (so that it is no negative), or do not look. Of those looked at, one with the very
    quote, such as the next one that repeats a sentence, is always noted."""
    searched: Annotated[int, Field(ge=1)] = 10
    """Passages looked at per question, found with the first BM25 of data.retrievers, or with BM25 as it is by
    default."""


class TeacherQuestionsSettings(Settings):
    """Questions written by a language model behind a server, one call a passage, checked before they are kept."""

    kind: Literal["teacher"]
    """Asks a server for questions, answers and quotes."""
    endpoint: TeacherSettings
    """Who is asked. A temperature above 0 varies the questions."""
    per_passage: Annotated[int, Field(ge=1, le=20)] = 2
    """Questions asked for per passage."""
    passages: Annotated[int, Field(ge=1)] | None = None
    """At most so many passages are asked about, drawn by the seed; null takes all."""
    min_words: Annotated[int, Field(ge=1)] = 20
    """Passages of fewer words are not asked about."""
    hops: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the passages that are shown together with one they are linked to by a rare title, for questions that
    need both; those linked to none are asked about alone."""
    template: str | None = None
    """A file with a prompt of your own (`rag-ft recipes copy templates/questions` writes ours); null takes ours."""
    filters: FiltersSettings = FiltersSettings()
    """Which questions are kept."""
