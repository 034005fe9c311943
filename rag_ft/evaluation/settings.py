"""What a recipe may say about evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_builders.servers.settings import EndpointSettings
from data_builders.settings import Settings
from rag_ft.prompting.settings import Style

_LONGEST_OUTPUT: dict[Style, int] = {"answer": 48, "reasoning": 256, "self_reasoning": 1024}


class SelfRouteSettings(Settings):
    """Self-Route (arXiv 2407.16833): few passages first; all of them only where the generator declines."""

    passages: Annotated[int, Field(ge=1)] = 5
    """Passages of the first try; the second shows as many as the point of the sweep."""


class SystemSettings(Settings):
    """What is evaluated: weights, a prompt style and a strategy."""

    name: str
    """How the report calls it."""
    weights: str = "base"
    """`base`: the recipe's starting weights. `tuned`: what the recipe trained. Else a folder or Hub id of an adapter
    on the same base, or of whole (merged) weights."""
    endpoint: EndpointSettings | None = None
    """A server to ask instead of weights loaded here."""
    style: Style | None = None
    """The style of the prompt; null takes that of model.prompt."""
    strategy: Literal["concatenate", "reorder", "self_route", "rag_sequence", "rag_sequence_fast", "rag_token"] = (
        "concatenate"
    )
    """How ranked passages become an answer: by rank; best at both ends; routed; or one passage per prompt,
    marginalised over whole answers (thorough or fast) or per token (arXiv 2005.11401)."""
    self_route: SelfRouteSettings = SelfRouteSettings()
    """For strategy self_route."""


class SweepSettings(Settings):
    """Points of the grid: every value of each axis with every value of the others."""

    passages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (10,)
    """Passage counts."""
    gold: Annotated[tuple[Literal["kept", "retrieved", "absent", "counterfactual"], ...], Field(min_length=1)] = (
        "kept",
    )
    """`retrieved`: the top passages as they are. `kept`: the same, but missing gold takes the last places. `absent`:
    without gold and whatever else may hold the answer. `counterfactual`: gold states another answer, and nothing else
    holds the true one."""
    position: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Where the gold passages stand, 0 first, 1 last; empty leaves them at their rank."""
    order: Annotated[tuple[Literal["retrieved", "reordered", "shuffled"], ...], Field(min_length=1)] = ("retrieved",)
    """By rank as the system's strategy has it, best at both ends, or shuffled."""
    draws: Annotated[int, Field(ge=2)] = 3
    """Shuffles of a context, whose answers are compared with one another."""
    noise: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Share of the passages that hold no answer (RGB, arXiv 2309.01431); empty leaves it as it comes."""
    negatives: Annotated[tuple[Literal["ranked", "hard", "weak", "random"], ...], Field(min_length=1)] = ("ranked",)
    """What fills a context up: what is ranked next, whatever it holds; or passages that hold no answer: the best
    ranked, the worst ranked of the pool, or those of other questions. Where gold is given a position, or noise is
    shown, `ranked` holds no answer either."""
    retriever: tuple[str, ...] = ()
    """Names of data.retrievers whose own rankings are shown; empty takes data.ranking."""


class JudgeSettings(Settings):
    """A language model that says whether an answer means an accepted one; optional, beside the string metrics."""

    endpoint: EndpointSettings
    """Who is asked."""


class EvaluationSettings(Settings):
    """Accuracy as passages are added, and under noise, against baselines, paired, with confidence intervals."""

    suite: Literal["quick", "robust", "full", "rgb"] | None = None
    """A named set that takes the place of passages, gold, sweeps and references; --suite says it too. `quick` asks at
    most 100 questions."""
    questions: Annotated[int, Field(ge=1)] | None = None
    """Questions of the test split; null takes all."""
    passages: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 5, 10)
    """Passage counts of the main sweep."""
    gold: Annotated[tuple[Literal["kept", "retrieved"], ...], Field(min_length=1)] = ("kept", "retrieved")
    """`retrieved`: the top passages as they are. `kept`: the same, but missing gold takes the last places."""
    sweeps: tuple[SweepSettings, ...] = ()
    """Further points: positions, orders, noise, retrievers, contexts without gold."""
    references: tuple[Literal["closed_book", "gold_only", "full_document"], ...] = ("closed_book", "gold_only")
    """Single points: no passage, the gold passages alone, the documents they were cut from."""
    systems: Annotated[tuple[SystemSettings, ...], Field(min_length=1)] = (
        SystemSettings(name="base", weights="base"),
        SystemSettings(name="base + reordering", weights="base", strategy="reorder"),
        SystemSettings(name="tuned", weights="tuned"),
    )
    """What is compared; the first is the baseline of all differences."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What generates with weights loaded here."""
    judge: JudgeSettings | None = None
    """A language model that judges answers too."""
    citation_nli: str | None = None
    """Model for natural language inference that judges citations as ALCE does (arXiv 2305.14627); null judges none."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Longest output in tokens; null takes 48 for style answer, 256 for reasoning, 1024 for self_reasoning."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Questions per forward pass; each brings its whole sweep."""
    prefix_sharing: bool = True
    """Encode what the prompts of a sweep share only once; off generates each prompt separately."""
    allow_prompt_mismatch: bool = False
    """Evaluate an adapter under another prompt than it was trained with."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of the intervals."""
    interval: Literal["percentile", "bca"] = "percentile"
    """How bootstrap intervals are read off: as they are, or corrected for bias and skew (BCa)."""
    resample: Literal["question", "document"] = "question"
    """What the bootstrap draws: single questions, or documents with all questions about them, which move together."""
    resamples: Annotated[int, Field(ge=100)] = 5000
    """Bootstrap resamples."""

    def longest_output(self, style: Style) -> int:
        """Return the most tokens a system may write in a style."""
        return self.max_new_tokens or _LONGEST_OUTPUT[style]
