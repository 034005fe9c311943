"""Settings of splits, duplicates and decontamination; their code is in the modules beside this one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_builders.settings import Settings

GroupKey = Literal["document", "title", "question"]
_Share = Annotated[float, Field(ge=0, le=1)]


class SplitsSettings(Settings):
    """Where questions go whose source names no split, and what counts as the same thing on both sides of a split."""

    validation: _Share = 0.0
    """Share of the questions without a split that becomes validation; raise it to choose a checkpoint by it."""
    test: _Share = 0.1
    """Share of the questions without a split that becomes the test; 0 where every source brings its own."""
    by: tuple[GroupKey, ...] = ("document", "title", "question")
    """Questions with the same gold document, gold title or near-duplicate wording stay in one split; take title out
    where titles are generic ("Introduction"), and document where all passages come from one file."""
    given: Literal["drop", "keep"] = "drop"
    """Training questions that share one of these with an evaluation question, both placed by their sources: leave them
    out, or keep them and only count (to train on a public split exactly as it is)."""

    @model_validator(mode="after")
    def _shares_fit(self) -> SplitsSettings:
        if self.validation + self.test > 1:
            raise ValueError(
                f"validation {self.validation:g} and test {self.test:g} are more than all questions; "
                "lower one of them so that training keeps the rest"
            )
        return self


class HygieneSettings(Settings):
    """What counts as the same question and the same passage."""

    near_duplicate: Annotated[float, Field(ge=0.8, le=1)] = 0.9
    """Two questions are near-duplicates when this share of their words is common (Jaccard: shared words by all words of
    both); 1 takes equal word sets only, less also takes questions that differ in a name."""
    repeated_questions: Literal["drop", "keep"] = "drop"
    """A question asked again in the same words: leave the later ones out, or keep all (then one split holds them)."""
    passages: bool = True
    """Decontaminate by gold passages too; turn it off when the evaluation set reads the same corpus on purpose."""
    ngram: Annotated[int, Field(ge=5, le=50)] = 13
    """Words in a row that two gold passages must share to count as one; fewer finds more and errs more."""
