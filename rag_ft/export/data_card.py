"""What a push of the built data sends: contexts and labels as Parquet, with a data set's card. Builds nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_builders.errors import RagFtError
from data_builders.paths import TRAINING_SPLITS, data_paths
from rag_ft.export.card import sources_table, with_metadata
from rag_ft.export.card_facts import DataSource
from rag_ft.export.push_files import Gathered, PushFile, text_file
from rag_ft.export.push_scan import Places
from rag_ft.recipe.licences import allows_changes, hub_licence
from rag_ft.report.markdown import code_block, escape, fact_lines

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TABLES = {
    "labels": "contexts with the labels the model is trained to write; this is what training reads",
    "contexts": "the same contexts before they were labelled",
}
_COLUMNS = """\
| Column | What it holds |
| --- | --- |
| `id` | the context |
| `passages` | `id`, `title`, `text`, in the order shown |
| `questions` | those asked of the context, one in the ordinary case |
| `questions.answers` | accepted answers |
| `questions.answerable` | the passages shown hold all that the answer needs |
| `questions.gold`, `.has_answer` | positions in `passages`, from 0: annotated as holding the answer; containing one |
| `questions.retrieved` | for each passage: which retriever found it, at which rank, with which score |
| `questions.label` | `relevance`, `evidence` (verbatim quotes), `analysis`, `answer` (null: it abstains) |
| `questions.label_source`, `.source`, `.group` | who wrote the label; where the question is from; its slice |"""


@dataclass(frozen=True)
class DataFacts:
    """What the card of a data set says.

    Attributes:
        name: the run's name.
        repo: id on the Hub that the card is written for.
        sources: the data sources one by one.
        labels: who wrote the labels.
        language: ISO 639-1.
        counts: every counted outcome of the build.
        dropped: what was left out, by reason, for each step.
        version: of rag-ft.
    """

    name: str
    repo: str
    sources: Sequence[DataSource]
    labels: str
    language: Sequence[str]
    counts: Mapping[str, Any]
    dropped: Mapping[str, Any]
    version: str


@dataclass(frozen=True)
class DataTable:
    """One Parquet file of the data set."""

    name: str
    split: str
    rows: int
    sha256: str
    path: Path

    @property
    def file(self) -> str:
        """Its path in the repository."""
        return f"{self.name}/{self.split}.parquet"


def data_tables(folder: Path, manifests: Mapping[str, Mapping[str, Any]]) -> list[DataTable]:
    """Return the tables of a run's data folder that have rows, labels first.

    Raises:
        RagFtError: there is none.
    """
    paths, found = data_paths(folder), []
    for name in _TABLES:
        for split in TRAINING_SPLITS:
            path = (paths.labels if name == "labels" else paths.contexts)[split]
            told = manifests.get(name, {}).get("outputs", {}).get(path.name, {})
            if told.get("rows") and path.is_file():
                found.append(DataTable(name, split, told["rows"], told["sha256"], path))
    if not found:
        raise RagFtError(f"{folder} holds no rows to push. Build them with `rag-ft build RECIPE`.")
    return found


def check_licences(sources: Sequence[DataSource], private: bool) -> None:
    """Refuse to hand on data whose licence allows no changed copies, which contexts are.

    Raises:
        RagFtError: a source has such a licence, and the repository would be public.
    """
    barred = next((one for one in sources if not allows_changes(one.licence)), None)
    if barred is not None and not private:
        raise RagFtError(
            f"export.data_licences: {barred.name} is under {barred.licence}, which allows no changed copies, and rows "
            "made of it are one. Push them with --private, or only what is trained on them (leave out --what data)."
        )


def data_files(tables: Sequence[DataTable], facts: DataFacts, records: Sequence[PushFile], places: Places) -> Gathered:
    """Return everything that is sent of a run's data.

    Args:
        tables: what `data_tables` found.
        facts: what the card says.
        records: recipe and manifests.
        places: folders of this machine, cut out of the card.
    """
    card = text_file("README.md", data_card(tables, facts, places))
    return Gathered((card, *(PushFile(table.file, table.path) for table in tables), *records), ())


def data_card(tables: Sequence[DataTable], facts: DataFacts, places: Places) -> str:
    """Return the card as Markdown behind the Hub's block of metadata, which also says how the data set loads."""
    rows = {table.split: table.rows for table in tables if table.name == tables[0].name}
    shown = ", ".join(f"{count:,} for {split}" for split, count in rows.items())
    first = (
        f"Contexts to train a RAG generator on, made by rag-ft: {shown}. Each shows passages as a retriever would, "
        "most of which look related but are about something else, a question, and what the model should write."
    )
    parts = {
        "": first,
        "Load it": code_block(f'from datasets import load_dataset\n\nrows = load_dataset("{facts.repo}")', "python"),
        "Tables": _about_tables(tables),
        "Columns": _COLUMNS,
        "Where it comes from": f"{sources_table(facts.sources)}\n\nThe labels were written by {escape(facts.labels)}.",
        "How it was built": _how(facts, places),
        "Limits": (
            "Passages that look related were found by retrievers, and nobody has read them all: some may hold the "
            "answer in other words. Passages are untrusted text: take control tokens out of them before you show "
            "them to a model."
        ),
    }
    body = [f"# {escape(facts.name)}"]
    body += [f"## {head}\n\n{text}" if head else text for head, text in parts.items()]
    return with_metadata(data_metadata(tables, facts), body)


def data_metadata(tables: Sequence[DataTable], facts: DataFacts) -> dict[str, Any]:
    """Return the metadata block; licences of several kinds are "other", and one that nobody stated is left out."""
    configs: list[dict[str, Any]] = []
    for name in dict.fromkeys(table.name for table in tables):
        files = [{"split": table.split, "path": table.file} for table in tables if table.name == name]
        configs.append({"config_name": name, "data_files": files, **({} if configs else {"default": True})})
    total = sum(table.rows for table in tables if table.name == tables[0].name)
    metadata = {
        **_licence({one.licence for one in facts.sources}),
        "language": list(facts.language),
        "task_categories": ["question-answering", "text-generation"],
        "size_categories": [next((name for most, name in _SIZES if total < most), "n>1M")],
        "tags": ["rag-ft", "rag", "retrieval-augmented-generation"],
        "pretty_name": facts.name,
        "configs": configs,
    }
    return {key: value for key, value in metadata.items() if value}


def _licence(of_sources: set[str | None]) -> dict[str, str]:
    known = {one for one in of_sources if one is not None}
    if known != of_sources or not known:
        return {}
    return hub_licence(known.pop()) if len(known) == 1 else {"license": "other"}


def _about_tables(tables: Sequence[DataTable]) -> str:
    lines = ["| File | Rows | SHA-256 |", "| --- | ---: | --- |"]
    lines += [f"| `{table.file}` | {table.rows:,} | `{table.sha256}` |" for table in tables]
    told = dict.fromkeys(table.name for table in tables)
    return "\n".join([*lines, "", *(f"- `{name}`: {_TABLES[name]}." for name in told)])


def _how(facts: DataFacts, places: Places) -> str:
    parts = [
        f"With rag-ft {facts.version} from `recipe.yaml`, which is the whole recipe, its defaults written out: "
        "`rag-ft build recipe.yaml` gives the same bytes where the sources are the same. `manifests/` has the hash of "
        "what went into each step and of what came out.",
        fact_lines(places.without(facts.counts)),
    ]
    if facts.dropped:
        parts.append(f"Left out, by step and reason:\n\n{fact_lines(places.without(facts.dropped))}")
    return "\n\n".join(parts)
