"""Context rows about a few towns, written by hand, and an encoder for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tiny_model import tiny_tokenizer

from data_builders.records import ContextQuestion, ContextRow, Evidence, Label, Passage, Relevance, Retrieved
from rag_ft.prompting.encode import Encoder
from rag_ft.prompting.settings import PromptSettings
from rag_ft.training.settings import TrainingSettings
from rag_ft.training.stages import Stage, planned_stages

TOWNS = ["Aldo", "Bexa", "Cyra", "Dunn", "Evra", "Fenn"]


def passage(index: int) -> Passage:
    return Passage(f"p{index}", TOWNS[index], f"The town of {TOWNS[index]} was founded in {1801 + index} by Berin.")


def asked(number: int, gold: Sequence[int], ranks: Sequence[int | None]) -> ContextQuestion:
    """A question about the first gold passage; without gold it abstains."""
    town = TOWNS[gold[0]] if gold else "Nowhere"
    label = Label(
        relevance=tuple(Relevance(i, i in gold, f"It is about {TOWNS[i]}.") for i in range(len(ranks))),
        evidence=tuple(Evidence(i, f"founded in {1801 + i}", f"It dates {TOWNS[i]}.") for i in gold),
        analysis=f"Therefore {1801 + gold[0]}." if gold else "No passage tells.",
        answer=str(1801 + gold[0]) if gold else None,
    )
    retrieved = tuple(None if rank is None else Retrieved("bm25", rank, 1.0 / (rank + 1)) for rank in ranks)
    answers = (label.answer or "1999",)
    text = f"When was {town} founded?"
    return ContextQuestion(
        f"q{number}", text, answers, bool(gold), tuple(gold), (), retrieved, label, "gold", "tiny", "one_hop"
    )


def row(count: int, *golds: Sequence[int]) -> ContextRow:
    """A context of `count` passages, ranked as shown, and one question for each group of gold passages."""
    ranks = list(range(1, count + 1))
    shown = tuple(passage(index) for index in range(count))
    return ContextRow("row", shown, tuple(asked(n, gold, ranks) for n, gold in enumerate(golds)))


def encoder(template: str = "chatml", style: str = "self_reasoning") -> Encoder:
    chosen = PromptSettings.model_validate({"style": style})
    return Encoder(tiny_tokenizer(template), chosen, {"enable_thinking": False})


def only_stage(folder: Path) -> Stage:
    """The one stage of a training without stages."""
    return planned_stages(TrainingSettings(), folder)[0]
