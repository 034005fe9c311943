"""Rules over questions that a teacher writes: they can be asked for, paid, and shown."""

from __future__ import annotations

from data_builders.errors import RagFtError
from data_builders.passage_counts import largest_count
from data_builders.sources.documents_settings import DocumentsSettings
from rag_ft.recipe.label_rules import secret, unpriced
from rag_ft.recipe.rule import rule
from rag_ft.recipe.settings import Recipe


@rule("data.sources", "data.questions")
def somebody_asks(recipe: Recipe) -> str | None:
    """Folders of documents bring passages alone where they name no file of questions."""
    silent = [
        name
        for name, source in recipe.data.sources.items()
        if isinstance(source, DocumentsSettings) and source.questions is None
    ]
    if recipe.data.questions is not None or len(silent) < len(recipe.data.sources):
        return None
    return (
        f"no source has questions: name a file of them with data.sources.{silent[0]}.questions, "
        "or have a teacher write them with data.questions.kind=teacher."
    )


@rule("data.questions.template", "data.questions")
def question_template_can_be_filled_in(recipe: Recipe) -> str | None:
    """A template of one's own is there, and asks for nothing that there is not."""
    from data_builders.synthesis.prompts import read_template

    questions = recipe.data.questions
    if questions is None or questions.template is None:
        return None
    try:
        read_template(questions.template)
    except RagFtError as error:
        return str(error).removeprefix("data.questions.template=")
    return None


@rule("data.questions.endpoint.budget.money", "data.questions")
def money_for_questions_needs_prices(recipe: Recipe) -> str | None:
    """Without prices nothing would ever count against the budget."""
    questions = recipe.data.questions
    return None if questions is None else unpriced(questions.endpoint, "data.questions")


@rule("data.questions.endpoint.base_url", "data.questions")
def address_of_who_writes_questions_holds_no_key(recipe: Recipe) -> str | None:
    """A recipe is printed, and written beside what is made of it."""
    questions = recipe.data.questions
    return None if questions is None else secret(questions.endpoint)


@rule("data.contexts.passages", "data.questions")
def written_hops_need_two_passages(recipe: Recipe) -> str | None:
    """A question of two hops has two gold passages."""
    questions = recipe.data.questions
    if questions is None or not questions.hops or largest_count(recipe.data.contexts.passages) >= 2:
        return None
    return (
        f"contexts of 1 passage cannot answer questions of two hops (data.questions.hops is {questions.hops:g}): "
        "allow 2, or set data.questions.hops=0."
    )
