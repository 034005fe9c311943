"""What a recipe may say about labels: who writes them, and which are let through."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from data_builders.servers.settings import TeacherSettings
from data_builders.settings import Settings


class LengthGateSettings(Settings):
    """How long the reasoning of a label may be."""

    least: Annotated[int, Field(ge=0)] = 3
    """Words of the reasons and the analysis together, at least."""
    most: Annotated[int, Field(ge=1)] = 400
    """The same, at most."""


class SupportGateSettings(Settings):
    """Whether the cited passages say the answer."""

    model: str | None = None
    """Model for natural language inference (a folder or Hub id) that decides; null asks whether they hold an accepted
    answer."""


class GatesSettings(Settings):
    """Which labels of a teacher are kept. Each gate may be turned off; what it turns away is counted, with examples."""

    well_formed: bool = True
    """The output has the parts that its style asks for."""
    answer: bool = True
    """The answer agrees with an accepted one, normalised; a context without evidence is declined."""
    citations: bool = True
    """Every cited number is that of a passage shown."""
    quotes: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    """Least likeness (0 to 1) of every quote to a stretch of its passage, normalised; 1 means word for word; null
    turns the gate off."""
    support: SupportGateSettings | None = SupportGateSettings()
    """The cited passages say the answer; null turns the gate off."""
    no_evidence: bool = True
    """A context without gold is given no evidence, and none of its passages is called relevant."""
    consistent: bool = True
    """Analysis, judgements and quotes do not contradict the answer or one another."""
    leak: bool = True
    """The reasoning does not speak of an answer that was given beforehand, or of instructions."""
    length: LengthGateSettings | None = LengthGateSettings()
    """Bounds of the reasoning; null turns the gate off."""


class GoldLabelsSettings(Settings):
    """Labels made of the source's gold annotations: free, exact, no teacher."""

    kind: Literal["gold"] = "gold"
    """Relevance, evidence, analysis and answer come from the annotations."""


class _WrittenSettings(Settings):
    style: Literal["reasoning", "self_reasoning"] = "self_reasoning"
    """What is written: which passages matter and why; or a judgement of every passage, quotes and an analysis."""
    form: Literal["auto", "json", "text"] = "auto"
    """In which form it is asked for: JSON, or the headed lines that the student will write; `auto` takes text for
    self-synthesis and where `endpoint.structured` is off."""
    template: str | None = None
    """A file with a prompt of your own (`rag-ft recipes copy` has ours to start from); null takes ours."""
    show_answer: bool = True
    """Show the gold answer to whoever writes the label."""
    gates: GatesSettings = GatesSettings()
    """Which labels are kept."""
    rejected: Literal["drop", "gold"] = "drop"
    """What becomes of a question whose label was turned away: it is left out, or gets the label of the annotations."""
    balance: Annotated[float, Field(ge=0, lt=1)] | None = 0.1
    """How far the share of abstentions among the labels let through may be from that among those asked for; of the kind
    that is too many some are left out, drawn by the seed. null leaves out none."""
    attempts: Annotated[int, Field(ge=1)] = 2
    """Tries at a label that can be read; after the first the writer is shown what was wrong."""


class TeacherLabelsSettings(_WrittenSettings):
    """Labels written by a language model behind a server, checked before they are kept."""

    kind: Literal["teacher"]
    """Asks a server for the labels."""
    endpoint: TeacherSettings
    """Who is asked."""


class SelfSynthesisLabelsSettings(_WrittenSettings):
    """Labels written by the student's own base model, given the gold answer (InstructRAG, arXiv 2406.13629)."""

    kind: Literal["self_synthesis"]
    """Generates the labels here, with transformers."""
    weights: str
    """Who writes: mostly the recipe's model.weights."""
    max_new_tokens: Annotated[int, Field(ge=16)] = 512
    """Longest label."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Prompts per forward pass."""


Form = Literal["json", "text"]


def form_of(settings: TeacherLabelsSettings | SelfSynthesisLabelsSettings) -> Form:
    """Return the form in which labels are asked for."""
    if settings.form != "auto":
        return settings.form
    held = isinstance(settings, TeacherLabelsSettings) and settings.endpoint.structured != "off"
    return "json" if held else "text"


LabelsSettings = Annotated[
    GoldLabelsSettings | TeacherLabelsSettings | SelfSynthesisLabelsSettings, Field(discriminator="kind")
]
