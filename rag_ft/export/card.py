"""The model card: README.md of the adapter folder, in the Hub's format. States facts it is given; measures nothing.

It reads the report's words and tables (scores -> report -> card), so that card and report never disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from data_builders.files import atomic_path
from rag_ft.export.card_facts import CardFacts, DataSource, local_name
from rag_ft.export.card_metadata import card_metadata
from rag_ft.export.card_use import messages_of, use
from rag_ft.prompting.render import prompt_hash
from rag_ft.report.figures import save_figure
from rag_ft.report.findings import counts_of, find, gold_modes, main_systems, percent, title
from rag_ft.report.markdown import code_block, escape, fact_lines, results_markdown

FIGURE_FILE = "accuracy.png"  # the Hub shows PNG everywhere, SVG not in every view
_STYLES = {
    "answer": "It writes the answer alone.",
    "reasoning": "It writes which passages matter and why, then the answer.",
    "self_reasoning": "It judges each passage, quotes its evidence, reasons from it, then writes the answer.",
}
_FORMS = {
    "adapter": "A LoRA adapter for {base}",
    "full": "{base}, all of whose weights were fine-tuned",
    "merged": "{base} with a LoRA adapter merged into its weights",
    "gguf": "{base} with a LoRA adapter merged into its weights, as GGUF for llama.cpp and Ollama",
}


def write_card(folder: Path, scores: Mapping[str, Any] | None, facts: CardFacts) -> None:
    """Write README.md, and the figure where there is one, into the adapter folder, each atomically.

    Raises:
        RagFtError: the folder cannot be written.
    """
    if scores and gold_modes(scores):
        save_figure(scores, folder / FIGURE_FILE)
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(model_card(scores, facts), encoding="utf-8")


def model_card(scores: Mapping[str, Any] | None, facts: CardFacts) -> str:
    """Return the card as Markdown behind a YAML block of metadata.

    Args:
        scores: the content of scores.json; None where the adapter was not evaluated, and the card says so.
        facts: everything else.
    """
    sections = {
        "Results": _results(scores, facts),
        "Use": use(facts),
        "Training data": _training_data(facts),
        "Training": fact_lines(facts.training),
        "Prompt contract": _prompt_contract(facts),
        "Limits": "\n".join(f"- {limit}" for limit in _limits(scores, facts)),
        "Licence": _licence(facts),
        "The run": _run(facts),
    }
    body = [f"# {escape(facts.name)}", _introduction(facts)]
    body += [f"## {head}\n\n{text.strip()}" for head, text in sections.items() if text.strip()]
    return with_metadata(card_metadata(scores, facts), body)


def with_metadata(metadata: Mapping[str, Any], body: list[str]) -> str:
    """Return a card of these paragraphs behind its block of metadata."""
    block = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{block}---\n\n" + "\n\n".join(body) + "\n"


def _results(scores: Mapping[str, Any] | None, facts: CardFacts) -> str:
    found = results_markdown(scores, FIGURE_FILE) if scores else f"This {facts.what} was not evaluated."
    if facts.form in ("adapter", "full"):
        return found
    changed = "merged into its base" + (" and quantised" if facts.form == "gguf" else "")
    where = f"Measured with the adapter on its base, before it was {changed}." if scores else ""
    return "\n\n".join(filter(None, [where, _compared(facts.exported), found]))


def _compared(exported: Mapping[str, Any]) -> str:
    """Say how near the export is to the adapter; nothing where nobody compared them."""
    told, kind = exported.get("compared"), exported.get("quantisation") or exported.get("dtype")
    saved = f"Saved as {escape(str(kind))}. " if kind else ""
    names = ("prompts", "positions", "greatest", "span", "same_first")
    if not isinstance(told, Mapping) or not all(isinstance(told.get(name), (int, float)) for name in names):
        return saved
    return (
        f"{saved}Compared with the adapter at {told['positions']:,} tokens of answers to {told['prompts']} prompts: "
        f"the same token was most likely at {told['same_first']:,} of them, and the greatest difference of a logit was "
        f"{told['greatest']:.2g}, of a range of {told['span']:.3g}."
    )


def _introduction(facts: CardFacts) -> str:
    base = facts.base_model
    of = f"[{base}](https://huggingface.co/{base})" if base else f"`{local_name(facts.weights)}`"
    it = _FORMS[facts.form].format(base=of)
    shown = facts.base_licence.shown if facts.base_licence else ""
    built = f"**{shown}.**\n\n" if shown else ""
    if facts.chat_alone:
        return f"{built}{it}. It was trained on questions with answers and conversations alone, never on passages."
    return (
        f"{built}{it}. It answers a question from retrieved passages and is trained to stay right as more "
        f"passages are shown, most of which look related but are about something else. {_STYLES[facts.prompt.style]} "
        f"Where no passage shown holds the answer, it is meant to reply: \u201c{escape(facts.prompt.abstention)}\u201d "
        "It is for people who run a RAG system and whose answers get worse with more passages."
    )


def _training_data(facts: CardFacts) -> str:
    if facts.chat_alone:
        return "Questions with answers and conversations, without passages. Their number is under Training."
    about = sources_table(facts.sources) if facts.sources else f"Source: `{facts.source}`."
    if facts.source == "invented_world":
        about += "\n\nPeople, places, organisations and works that do not exist, so that no model can know the answers."
    if facts.labels:
        about += f"\n\nThe labels, which say what the model should write, were written by {escape(facts.labels)}."
    return f"{about}\n\n{fact_lines(facts.data)}"


def sources_table(sources: Sequence[DataSource]) -> str:
    """Return the data sources as a table, with the licence of each as far as it is known."""
    rows = ["| Source | Format | Data set | Licence |", "| --- | --- | --- | --- |"]
    for one in sources:
        cells = (one.name, one.kind, one.dataset or "\u2013", one.licence or "not stated")
        rows.append(f"| {' | '.join(map(escape, cells))} |")
    return "\n".join(rows)


def _prompt_contract(facts: CardFacts) -> str:
    lines = fact_lines({"hash": prompt_hash(facts.prompt), **facts.prompt.model_dump(mode="json")})
    template = "inside the `.gguf` file" if facts.form == "gguf" else "`chat_template.jinja`"
    lines += f"\n- Chat template: {template}" + (
        f", with {escape(str(dict(facts.chat_template_kwargs)))}" if facts.chat_template_kwargs else ""
    )
    if facts.chat_alone:
        return f"The {facts.what} was trained on chat rows as they are, and evaluated with this prompt.\n\n{lines}"
    trained = "one prompt"
    if facts.direct_share:
        trained = f"this prompt and, in {100 * facts.direct_share:g} % of the rows, with the one of style answer"
    return (
        f"The {facts.what} was trained with {trained}, and its results hold for that prompt only. rag-ft refuses to "
        "evaluate it with one it was not trained with. `prompt.json` holds the same for programs.\n\n"
        f"{lines}\n\nThe prompt of the example under Use, word for word: the instruction, then the passages in the "
        f"order they were ranked, then the question.\n\n{code_block(_example(facts))}"
    )


def _example(facts: CardFacts) -> str:
    return "\n\n".join(f"({one['role']})\n{one['content']}" for one in messages_of(facts))


def _limits(scores: Mapping[str, Any] | None, facts: CardFacts) -> list[str]:
    limits = []
    if facts.source == "invented_world" and not facts.chat_alone:
        limits.append(
            "Trained on an invented world only, in short English passages made by a program. The results show that it "
            "tells look-alike passages apart there; they do not show how it does on your documents. Evaluate it on "
            "your own before you rely on it."
        )
    limits += _measured_limits(scores) if scores else ["Nothing about its accuracy is known yet."]
    limits += [
        "It takes the passages at their word: a false or hostile passage can give a false answer.",
        "What it may have unlearned outside this task was not measured.",
    ]
    if facts.weights.startswith("package:") or facts.weights.endswith(".gguf"):
        limits.append(
            "Trained on base weights dequantised from a GGUF file; on the original weights it may differ a little."
        )
    return limits


def _measured_limits(scores: Mapping[str, Any]) -> list[str]:
    limits, system = [], main_systems(scores)[0]
    for gold in gold_modes(scores):
        largest = counts_of(scores, gold)[-1]
        cell = find(scores["cells"], system=system, gold=gold, passages=largest, group="all")
        counted = cell["abstention"] if cell else {}
        missing = counted.get("answered_unanswerable", 0) + counted.get("abstained_unanswerable", 0)
        if missing and counted["hallucination_rate"] is not None:
            share = percent(counted["hallucination_rate"])
            limits.append(
                f"{title(gold)}, {largest} passages: where the evidence was missing ({missing} questions), it still "
                f"answered {share} % of the time."
            )
    largest = max((count for gold in gold_modes(scores) for count in counts_of(scores, gold)), default=0)
    return [*limits, f"Not evaluated beyond {largest} passages."]


def _licence(facts: CardFacts) -> str:
    known, licence = facts.base_licence, facts.licence
    lines = [f"Licence of this {facts.what}: {escape(licence)}." if licence else "Nobody has stated a licence."]
    if known and known.notice:
        lines.append(f"{escape(known.notice)} See `NOTICE`.")
    elif not known:
        lines.append("That of the base model applies too.")
    return " ".join(lines)


def _run(facts: CardFacts) -> str:
    parts = [fact_lines({"versions": facts.versions})] if facts.versions else []
    again = "`recipe.yaml` is the whole recipe of this run, its defaults written out; `manifests/` tells "
    again += "step by step what went into the data and what was left out."
    parts += [again] if facts.repo else []
    return "\n\n".join([*parts, *([code_block(facts.command, "sh")] if facts.command else [])])
