"""What the cards say beyond the scores, gathered from a resolved recipe and what a run recorded. Lays nothing out."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rag_ft.evaluation.settings import EvaluationSettings
from rag_ft.export.settings import ExportSettings
from rag_ft.prompting.settings import PromptSettings
from rag_ft.recipe.licences import PACKAGED, Licence, base_licence, chosen_licence, data_licence

Form = Literal["adapter", "full", "merged", "gguf"]
"""What lies in a folder: an adapter; all weights, trained; an adapter merged into its base; that as GGUF."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_FILES = (".gguf", ".jsonl", ".json", ".parquet", ".csv", ".tsv", ".arrow")
_WROTE = {
    "gold": "a program, from the annotations of the data",
    "self_synthesis": "the base model itself, before it was trained",
}


@dataclass(frozen=True)
class DataSource:
    """One source of the training data.

    Attributes:
        name: in data.sources.
        kind: its format.
        dataset: its Hub id; None for files.
        licence: as far as known.
    """

    name: str
    kind: str
    dataset: str | None
    licence: str | None


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
        sources: the data sources one by one.
        labels: who wrote the labels.
        versions: package versions.
        command: the command that makes it again.
        chat_template_kwargs: extra variables of the chat template.
        max_new_tokens: longest answer when it was evaluated.
        form: what lies in the folder.
        files: names of the .gguf files, where those lie in it.
        exported: what export.json says of a merged model or a GGUF file: its type and how near it is to the adapter.
        rank: of the LoRA matrices.
        vllm_refuses: why vLLM does not serve it as an adapter; empty where it does.
        system_role: the chat template has one; else the instruction begins the user's message.
        repo: id on the Hub that the card is written for; None for a folder.
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
    sources: Sequence[DataSource] = ()
    labels: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 48
    form: Form = "adapter"
    files: Sequence[str] = ()
    exported: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 16
    vllm_refuses: Sequence[str] = ()
    system_role: bool = True
    repo: str | None = None
    chat_alone: bool = False
    direct_share: float = 0.0

    @property
    def what(self) -> str:
        """What lies in the folder, as a noun."""
        return "adapter" if self.form == "adapter" else "model"

    @property
    def base_model(self) -> str | None:
        """Hub id of the base model; None where the weights have none."""
        return PACKAGED.get(self.weights) or (self.weights if is_hub_id(self.weights) else None)

    @property
    def base_licence(self) -> Licence | None:
        """What is known of the base model's licence."""
        return base_licence(self.base_model) if self.base_model else None

    @property
    def licence(self) -> str | None:
        """Licence of what lies in the folder; None where nobody said."""
        return chosen_licence(self.export.licence, self.base_model or "")

    @property
    def datasets(self) -> list[str]:
        """Hub ids of data sets it was trained on."""
        return [] if self.chat_alone else [one.dataset for one in self.sources if one.dataset]

    @property
    def slug(self) -> str:
        """The run's name as a server or a shell takes it."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.name).strip("-.") or "model"


def is_hub_id(reference: str) -> bool:
    """Tell whether a reference is that of something on the Hub; what exists here as a path is not."""
    if not _HUB_ID.fullmatch(reference) or reference.endswith(_FILES):
        return False
    return not Path(reference).exists()


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
    model, chat, sources = recipe["model"], recipe["training"]["chat"], recipe["data"]["sources"]
    export = ExportSettings.model_validate_json(json.dumps(recipe["export"]))
    return CardFacts(
        name=recipe["name"],
        weights=model["weights"],
        revision=revision or model["revision"],
        prompt=PromptSettings.model_validate(model["prompt"]),
        chat_template_kwargs=model["chat_template_kwargs"],
        source=", ".join(dict.fromkeys(one["kind"] for one in sources.values())),
        sources=data_sources(sources, export),
        labels=label_writer(recipe["data"]["labels"]),
        export=export,
        max_new_tokens=EvaluationSettings(max_new_tokens=recipe["evaluation"]["max_new_tokens"]).longest_output(
            recipe["model"]["prompt"]["style"]
        ),
        data=data,
        training=training,
        versions=versions,
        command=_without_folders(command),
        form="full" if model["tuning"] == "full" else "adapter",
        rank=model["lora"]["rank"],
        chat_alone=chat is not None and chat["share"] == 1,
        direct_share=recipe["training"]["direct_share"],
    )


def data_sources(sources: Mapping[str, Mapping[str, Any]], export: ExportSettings) -> list[DataSource]:
    """Return the data sources of a resolved recipe, with their licences as far as they are known."""
    found = []
    for name, one in sources.items():
        dataset = str(one.get("dataset") or "")
        licence = data_licence(one, export.data_licences.get(name))
        found.append(DataSource(name, one["kind"], dataset if is_hub_id(dataset) else None, licence))
    return found


def label_writer(labels: Mapping[str, Any]) -> str:
    """Say who wrote the labels: a teacher is named, where it is asked is not."""
    model = (labels.get("endpoint") or {}).get("model")
    kind = str(labels.get("kind"))
    return f"the model {local_name(str(model))}" if model else _WROTE.get(kind, kind)


_PATH = re.compile(r"(?<![\w./:~])(?:~?/|[A-Za-z]:\\)[^\s,\]}'\"]+")


def local_name(weights: str) -> str:
    """Return the last part of a path: folders of the machine it was trained on are nobody's business."""
    return re.split(r"[/\\]", weights.rstrip("/\\"))[-1].replace("`", "'")


def _without_folders(command: str) -> str:
    """Return a command with every absolute path cut down to its last part, within overrides too."""
    return shlex.join(_without_folder(word) for word in shlex.split(command))


def _without_folder(word: str) -> str:
    if re.match(r"/|~|[A-Za-z]:\\", word):
        return local_name(word)
    return _PATH.sub(lambda found: local_name(found.group()), word)
