"""The steps from a source to labelled context rows, each cached, resumable and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from data_builders.contexts import ContextsSettings
from data_builders.errors import RagFtError
from data_builders.labels import GoldLabelsSettings, LabelsSettings
from data_builders.negatives import NegativesSettings
from data_builders.retrievers import Bm25Settings, RetrieverSettings
from data_builders.settings import Settings
from data_builders.sources import SourceSettings, Split
from data_builders.sources.invented_world import InventedWorldSettings

if TYPE_CHECKING:
    from data_builders.manifest import Tally
    from data_builders.records import ContextRow
    from data_builders.steps import Step

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
TRAINING_SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")
_VERSIONS = {"source": 2, "pools": 1, "contexts": 2, "labels": 1}  # raise one when its step writes something else


class DataSettings(Settings):
    """From documents and questions to training rows."""

    source: SourceSettings = InventedWorldSettings()
    """Where questions and passages come from."""
    retrievers: Annotated[tuple[RetrieverSettings, ...], Field(min_length=1)] = (Bm25Settings(),)
    """Retrievers whose results make the pools."""
    depth: Annotated[int, Field(ge=1)] = 50
    """Passages kept per question and retriever."""
    negatives: NegativesSettings = NegativesSettings()
    """Which retrieved passages may be hard negatives."""
    contexts: ContextsSettings = ContextsSettings()
    """How contexts are composed."""
    labels: LabelsSettings = GoldLabelsSettings()
    """Who writes the labels."""


@dataclass(frozen=True)
class DataPaths:
    """The files a build leaves, by split. `contexts` and `labels` exist for train and validation."""

    passages: dict[str, Path]
    questions: dict[str, Path]
    pools: dict[str, Path]
    contexts: dict[str, Path]
    labels: dict[str, Path]


def data_paths(folder: Path) -> DataPaths:
    """Return where `build_data` puts the files of each split below its folder."""
    return DataPaths(
        passages={split: folder / f"source/passages-{split}.parquet" for split in SPLITS},
        questions={split: folder / f"source/questions-{split}.parquet" for split in SPLITS},
        pools={split: folder / f"pools/{split}.parquet" for split in SPLITS},
        contexts={split: folder / f"contexts/{split}.parquet" for split in TRAINING_SPLITS},
        labels={split: folder / f"labels/{split}.parquet" for split in TRAINING_SPLITS},
    )


def build_data(settings: DataSettings, seed: int, folder: Path, *, report: Callable[[str], None]) -> None:
    """Build `folder`/{source,pools,contexts,labels}, running only the steps whose inputs or files changed.

    Args:
        settings: the `data` section of a recipe.
        seed: seed of everything random; the same settings and seed give the same bytes.
        folder: the data folder of a run; made if missing.
        report: takes the lines a person reads.

    Raises:
        RagFtError: the source's data break a contract, or the folder cannot be written.
    """
    from data_builders.steps import run_steps

    run_steps(data_steps(settings, seed, folder), seed, folder, report)


def require_built(settings: DataSettings, seed: int, folder: Path) -> None:
    """Make sure that the files below `folder` are those these settings and this seed give.

    Raises:
        RagFtError: a step was not built, was built from something else, or lost or changed a file.
    """
    from data_builders.steps import first_stale

    stale = first_stale(data_steps(settings, seed, folder), seed, folder)
    if stale:
        raise RagFtError(
            f"the data in {folder} are not those of this recipe: {stale}. Run `rag-ft build RECIPE` first."
        )


def data_steps(settings: DataSettings, seed: int, folder: Path) -> list[Step]:
    """Declare the steps: what each depends on and the work it does."""
    from data_builders.steps import Step

    paths = data_paths(folder)

    def step(name: str, needs: list[dict[str, Path]], depends: dict[str, Any], work: Callable[..., None]) -> Step:
        inputs = tuple(path.relative_to(folder).as_posix() for group in needs for path in group.values())
        files = tuple(path.name for path in outputs[name])
        return Step(name, _VERSIONS[name], depends, inputs, files, partial(work, settings, seed, paths))

    outputs = {
        "source": [*paths.passages.values(), *paths.questions.values()],
        "pools": [*paths.pools.values()],
        "contexts": [*paths.contexts.values()],
        "labels": [*paths.labels.values()],
    }
    plain = settings.model_dump(mode="json")
    gold_absent = plain["contexts"].pop("gold_absent")
    composing = {name: plain[name] for name in ("negatives", "contexts")}
    labelling = {"labels": plain["labels"], "gold_absent": gold_absent}
    searching = {name: plain[name] for name in ("retrievers", "depth")}
    source = [paths.passages, paths.questions]
    return [
        step("source", [], {"source": plain["source"]}, _source),
        step("pools", source, searching, _pools),
        step("contexts", [_training(files) for files in (*source, paths.pools)], composing, _contexts),
        step("labels", [_training(paths.questions), paths.contexts], labelling, _labels),
    ]


def _training(files: dict[str, Path]) -> dict[str, Path]:
    return {split: files[split] for split in TRAINING_SPLITS}


def _source(settings: DataSettings, seed: int, paths: DataPaths, target: Path, tally: Tally) -> None:
    from data_builders.source_step import write_split
    from data_builders.sources import open_source

    source = open_source(settings.source, seed)
    for split in SPLITS:
        write_split(source, split, paths.passages[split], paths.questions[split], tally)


def _pools(settings: DataSettings, seed: int, paths: DataPaths, target: Path, tally: Tally) -> None:
    from data_builders.pools import write_pools

    for split, path in paths.pools.items():
        retrieval = (settings.retrievers, settings.depth)
        write_pools(paths.passages[split], paths.questions[split], path, retrieval, tally)
    tally.advice.append("Low recall? Raise data.depth, or set data.retrievers to the language of your passages.")


def _contexts(settings: DataSettings, seed: int, paths: DataPaths, target: Path, tally: Tally) -> None:
    from data_builders.context_rows import Plan
    from data_builders.pools import read_split
    from data_builders.records import ContextRow, write_records

    caps = settings.contexts.contexts or {}
    for split, path in paths.contexts.items():
        plan = Plan(settings.contexts, settings.negatives, seed, caps.get(split))  # type: ignore[call-overload]
        data = read_split(paths.passages[split], paths.questions[split], paths.pools[split])
        tally.rows[path.name] = write_records(path, ContextRow, _context_rows(data, plan, tally))
    tally.counts["gold positions"] = tally.histogram("gold position")
    _advise_contexts(settings, tally)


def _context_rows(data: Any, plan: Any, tally: Tally) -> Iterator[ContextRow]:
    from data_builders.context_rows import measure, single_rows
    from data_builders.shared_contexts import shared_rows

    rows = shared_rows if plan.contexts.questions_per_context > 1 else single_rows
    for row in islice(rows(data, plan, tally), plan.cap):
        measure(row, tally)
        yield row


def _advise_contexts(settings: DataSettings, tally: Tally) -> None:
    if tally.counts.get("contexts with fewer passages than drawn"):
        tally.advice.append(
            "Contexts came out small: lower data.contexts.passages or data.contexts.hard_share, "
            "or raise data.depth and data.negatives.rank_high."
        )
    asked = tally.quantiles().get("questions per context", {}).get("mean", 0)
    if asked < settings.contexts.questions_per_context / 2:
        tally.advice.append(
            f"Contexts serve {asked:g} questions on average, not {settings.contexts.questions_per_context}: "
            "raise data.contexts.passages or set a cap in data.contexts.contexts."
        )


def _labels(settings: DataSettings, seed: int, paths: DataPaths, target: Path, tally: Tally) -> None:
    from data_builders.labels.gold import label_rows
    from data_builders.pools import read_annotations
    from data_builders.records import ContextRow, read_context_rows, write_records

    for split, path in paths.labels.items():
        annotated = read_annotations(paths.questions[split])
        rows = label_rows(
            read_context_rows(paths.contexts[split]), annotated.question, settings.contexts.gold_absent, tally
        )
        tally.rows[path.name] = write_records(path, ContextRow, rows)
