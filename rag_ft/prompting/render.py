"""THE renderer: question, context and style -> prompt segments and named target spans. Pure text, no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from data_builders.files import content_hash
from data_builders.records import Evidence, Label, Passage, Relevance
from rag_ft.prompting import templates
from rag_ft.prompting.neutralise import Neutralise
from rag_ft.prompting.parse import one_line, split_quote
from rag_ft.prompting.settings import PromptSettings

SPAN_NAMES = ("relevance", "evidence", "analysis", "answer", "end")


@dataclass(frozen=True)
class Span:
    """A named part of the target."""

    name: str
    text: str


@dataclass(frozen=True)
class Prompt:
    """A prompt in the parts that prefix sharing and shared contexts work with.

    `system` and `ahead` make the head; `passages` are one segment each; `question` closes the user's message.
    """

    system: str
    ahead: str
    passages: tuple[str, ...]
    question: str

    @property
    def user(self) -> str:
        """The user's message as one string."""
        return self.ahead + "".join(self.passages) + self.question


def render_prompt(question: str, passages: Sequence[Passage], settings: PromptSettings) -> Prompt:
    """Render the prompt for a question over passages in the order given; no passages is the closed-book prompt."""
    position = settings.question_position
    shown = tuple(
        templates.passage_text(number, passage.title.strip(), passage.text.strip(), settings.titles)
        for number, passage in enumerate(passages, start=1)
    )
    instruction = templates.INSTRUCTIONS[settings.style] if passages else templates.CLOSED_BOOK
    return Prompt(
        system=instruction.format(abstention=settings.abstention),
        ahead=templates.question_ahead_text(question.strip()) if position != "after" and passages else "",
        passages=shown,
        question=templates.question_text(question.strip()) if position != "before" or not passages else "Reply now.",
    )


def render_safe_prompt(
    question: str, passages: Sequence[Passage], settings: PromptSettings, neutralise: Neutralise
) -> Prompt:
    """Render a prompt of texts from outside, which lose the power of control tokens first."""
    safe = [Passage(passage.id, neutralise(passage.title), neutralise(passage.text)) for passage in passages]
    return render_prompt(neutralise(question), safe, settings)


def render_target(label: Label, settings: PromptSettings) -> tuple[Span, ...]:
    """Render the label in the style of `settings`. The end-of-turn span is the tokenizer's and comes with encoding.

    Each reason, quote, analysis and answer takes one line, so that parse_output reads it back whole.
    """
    answer = settings.abstention if label.answer is None else one_line(label.answer)
    if settings.style == "answer":
        return (Span("answer", answer),)
    if settings.style == "reasoning":
        return (Span("relevance", _reasons(label)), Span("answer", f"Answer: {answer}"))
    return (
        Span("relevance", _judgements(label)),
        Span("evidence", _evidence(label)),
        Span("analysis", f"Analysis: {one_line(label.analysis)}\n"),
        Span("answer", f"Answer: {answer}"),
    )


def _reasons(label: Label) -> str:
    lines = [f"[{item.passage + 1}] {one_line(item.reason)}" for item in label.relevance if item.relevant]
    return "\n".join(lines or [templates.NO_PASSAGE_RELEVANT]) + "\n"


def _judgements(label: Label) -> str:
    lines = [
        f"[{item.passage + 1}] {'yes' if item.relevant else 'no'}: {one_line(item.reason)}" for item in label.relevance
    ]
    return "\n".join(["Relevance:", *lines]) + "\n"


def _evidence(label: Label) -> str:
    lines = [f"[{item.passage + 1}] {_quoted(one_line(item.quote), one_line(item.reason))}" for item in label.evidence]
    return "\n".join(["Evidence:", *(lines or [templates.NO_EVIDENCE])]) + "\n"


def _quoted(quote: str, reason: str) -> str:
    """Put a quote in quotation marks; marks of its own that would end it early become typographic."""
    line = f'"{quote}": {reason}'
    return line if split_quote(line) == (quote, reason) else f'"{quote.replace(chr(34), chr(0x201D))}": {reason}'


def prompt_hash(settings: PromptSettings) -> str:
    """Return the hash of templates and settings that travels with an adapter; evaluation refuses another."""
    passages = [Passage("", "title", "text"), Passage("", "", "text")]
    label = Label((Relevance(0, True, "reason"), Relevance(1, False, "reason")), (), "analysis", "answer")
    quoting = replace(label, evidence=(Evidence(0, "text", "reason"),))
    abstaining = Label((), (), "analysis", None)
    words = [
        templates.TEMPLATE_VERSION,
        [asdict(render_prompt("question", shown, settings)) for shown in (passages, [])],
        [[asdict(span) for span in render_target(each, settings)] for each in (label, quoting, abstaining)],
    ]
    return content_hash([words, settings.model_dump(mode="json")])
