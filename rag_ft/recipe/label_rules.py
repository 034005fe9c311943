"""Rules over labels that a language model writes: they fit the prompt, can be asked for, and paid."""

from __future__ import annotations

from pathlib import Path

from data_builders.errors import RagFtError
from data_builders.labels.settings import (
    GoldLabelsSettings,
    SelfSynthesisLabelsSettings,
    TeacherLabelsSettings,
    form_of,
)
from data_builders.servers.settings import EndpointSettings, TeacherSettings, secret_in_address
from rag_ft.recipe.rule import rule
from rag_ft.recipe.settings import Recipe

WrittenSettings = TeacherLabelsSettings | SelfSynthesisLabelsSettings


def _written(recipe: Recipe) -> WrittenSettings | None:
    labels = recipe.data.labels
    return None if isinstance(labels, GoldLabelsSettings) else labels


@rule("data.labels.style", "data.labels.kind", "model.prompt.style")
def written_labels_have_what_the_prompt_asks_for(recipe: Recipe) -> str | None:
    """A target is rendered in the style of the prompt; stages are held to that style by a rule of their own."""
    labels, style = _written(recipe), recipe.model.prompt.style
    if labels is None or style == labels.style or (labels.style == "self_reasoning" and style == "reasoning"):
        return None
    if style == "answer":
        return (
            f"{labels.style} labels are paid for and never shown, since model.prompt.style=answer trains the answer "
            f"alone: set model.prompt.style={labels.style}, or data.labels.kind=gold."
        )
    return (
        f'"{labels.style}" labels have no evidence and no analysis, which model.prompt.style={style} trains: set '
        f"data.labels.style={style}, or model.prompt.style={labels.style}."
    )


@rule("data.labels.template", "data.labels.style", "data.labels.kind")
def label_template_can_be_filled_in(recipe: Recipe) -> str | None:
    """A template of one's own is there, and asks for nothing that there is not."""
    from data_builders.labels.prompts import read_template

    labels = _written(recipe)
    if labels is None or labels.template is None:
        return None
    try:
        read_template(labels.template, labels.style, form_of(labels))
    except RagFtError as error:
        return str(error).removeprefix("data.labels.template=")
    return None


@rule("data.labels.endpoint.budget.money", "data.labels.endpoint", "data.labels.kind")
def money_needs_prices(recipe: Recipe) -> str | None:
    """Without prices nothing would ever count against the budget."""
    labels = recipe.data.labels
    return unpriced(labels.endpoint, "data.labels") if isinstance(labels, TeacherLabelsSettings) else None


def unpriced(endpoint: TeacherSettings, section: str) -> str | None:
    """Say which prices a budget in money lacks."""
    missing = [name for name in ("input_price", "output_price") if getattr(endpoint, name) is None]
    if endpoint.budget.money is None or not missing:
        return None
    keys = " and ".join(f"{section}.endpoint.{name}" for name in missing)
    return f"money is counted by prices: set {keys} (of a million tokens), or limit tokens instead."


@rule("data.labels.endpoint.base_url", "data.labels.kind")
def address_of_the_teacher_holds_no_key(recipe: Recipe) -> str | None:
    """A recipe is printed, and written beside what is made of it."""
    labels = recipe.data.labels
    return secret(labels.endpoint) if isinstance(labels, TeacherLabelsSettings) else None


def secret(endpoint: EndpointSettings) -> str | None:
    """Say what to change in an address that holds what may be a key."""
    try:
        told = secret_in_address(endpoint)
    except ValueError:  # what is no address is said when it is asked
        return None
    return f"the address {told}" if told else None


@rule("data.labels.gates.length", "data.labels.kind")
def length_bounds_leave_room(recipe: Recipe) -> str | None:
    """Bounds that cross turn every label away."""
    labels = _written(recipe)
    bounds = labels.gates.length if labels else None
    if bounds is None or bounds.least <= bounds.most:
        return None
    return f"no label has at least {bounds.least} and at most {bounds.most} words: raise most, or lower least."


@rule("data.labels.gates.support.model", "data.labels.kind")
def support_model_can_be_found(recipe: Recipe) -> str | None:
    """A folder that is there, or an id of the Hub."""
    labels = _written(recipe)
    model = labels.gates.support.model if labels and labels.gates.support else None
    return None if model is None else _no_model(model)


@rule("data.labels.weights", "data.labels.kind")
def writing_weights_are_instructed(recipe: Recipe) -> str | None:
    """The name is checked before a build begins; whether the weights can be read shows when they are loaded."""
    labels = recipe.data.labels
    if not isinstance(labels, SelfSynthesisLabelsSettings) or labels.weights.strip():
        return None
    return "empty: write the weights that explain the answers, mostly those of model.weights."


def _no_model(name: str) -> str | None:
    if Path(name).is_dir() or (name.count("/") == 1 and name[0] not in "./~"):
        return None
    return f'"{name}" is neither a folder nor a Hub id: write organisation/name, or the path of a folder that exists.'
