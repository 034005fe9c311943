"""The block of metadata at the head of a model card, in the Hub's format. States facts it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag_ft.export.card_facts import CardFacts
from rag_ft.recipe.licences import hub_licence
from rag_ft.report.findings import counts_of, find, gold_modes, level, main_systems, percent, title

_TAGS = ("rag-ft", "rag", "retrieval-augmented-generation")
_LIBRARIES = {"adapter": "peft", "full": "transformers", "merged": "transformers", "gguf": "gguf"}


def card_metadata(scores: Mapping[str, Any] | None, facts: CardFacts) -> dict[str, Any]:
    """Return the metadata block. Results of an unfinished evaluation are left out of `model-index`."""
    # a GGUF too: "quantized" would list it as the base model itself in fewer bits, which nobody trained
    relation = "adapter" if facts.form == "adapter" else "finetune"
    metadata: dict[str, Any] = {
        "base_model": facts.base_model,
        "base_model_relation": relation if facts.base_model else None,
        "library_name": _LIBRARIES[facts.form],
        "pipeline_tag": "text-generation",
        **(hub_licence(facts.licence) if facts.licence else {}),
        "language": list(facts.export.language),
        "tags": [*_TAGS, *(["lora"] if facts.form == "adapter" else [])],
        "datasets": facts.datasets,
    }
    # scores are of the adapter on its base; a quantised file is another model, which nobody measured
    measured = scores and not scores["partial"] and facts.form != "gguf"
    results = _index_results(scores, facts) if scores and measured else []
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
