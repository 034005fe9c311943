"""The steps from sources to labelled context rows, each cached, resumable and reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from data_builders.contexts import ContextsSettings
from data_builders.errors import RagFtError
from data_builders.guard_settings import GuardSettings
from data_builders.hygiene.settings import HygieneSettings, SplitsSettings
from data_builders.labels import GoldLabelsSettings, LabelsSettings
from data_builders.negatives import NegativesSettings
from data_builders.ranking import InterleaveSettings, RankingSettings
from data_builders.retrievers import retriever_names
from data_builders.retrievers.settings import Bm25Settings, RetrieverSettings
from data_builders.settings import Settings
from data_builders.sources import SourceSettings
from data_builders.sources.invented_world import InventedWorldSettings
from data_builders.sources.rows import SPLITS, Split

if TYPE_CHECKING:
    from data_builders.retrieval import SplitFiles

TRAINING_SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


class DataSettings(Settings):
    """From documents and questions to training rows."""

    sources: Annotated[dict[Annotated[str, Field(pattern=f"^{_NAME}$")], SourceSettings], Field(min_length=1)] = {
        "invented_world": InventedWorldSettings()
    }
    """Where questions and passages come from: a name of your choice -> a source. All share one corpus and one mix."""
    splits: SplitsSettings = SplitsSettings()
    """Which questions train, validate and test, where the sources do not say."""
    sample: dict[Split, Annotated[int, Field(ge=0)]] | None = None
    """At most this many questions of a split, drawn by the seed; null takes all."""
    gold: Literal["annotated", "answer_match"] = "annotated"
    """Questions without an annotated gold passage: leave them out, or take the best passage that holds the answer."""
    hygiene: HygieneSettings = HygieneSettings()
    """What counts as the same question and the same passage."""
    decontaminate: dict[Annotated[str, Field(pattern=f"^{_NAME}$")], SourceSettings] = {}
    """Evaluation sets that must not be trained on: a name of your choice -> a source."""
    retrievers: Annotated[tuple[RetrieverSettings, ...], Field(min_length=1)] = (Bm25Settings(),)
    """Retrievers whose results make the pools; negatives of several teach what no single one can."""
    depth: Annotated[int, Field(ge=1)] = 50
    """Passages kept per question and retriever."""
    ranking: RankingSettings = InterleaveSettings()
    """How the results of several retrievers become one ranking."""
    guard: GuardSettings = GuardSettings()
    """Which retrieved passages may not be negatives, since they may hold the answer."""
    negatives: NegativesSettings = NegativesSettings()
    """Which of the other passages are shown as negatives."""
    contexts: ContextsSettings = ContextsSettings()
    """How contexts are composed."""
    labels: LabelsSettings = GoldLabelsSettings()
    """Who writes the labels."""
    executor: Literal["processes", "ray"] = "processes"
    """Who runs the parts of a step: processes of this machine, or the Ray cluster that RAY_ADDRESS names."""
    processes: Annotated[int, Field(ge=1)] | None = None
    """How many at once; null takes every core. Changes how long a build takes and how much memory, never its bytes."""

    @field_validator("retrievers")
    @classmethod
    def _names_make_folders(cls, retrievers: tuple[RetrieverSettings, ...]) -> tuple[RetrieverSettings, ...]:
        import re

        wrong = next((name for name in retriever_names(retrievers) if not re.fullmatch(_NAME, name)), None)
        if wrong is not None:
            raise ValueError(f'"{wrong}" cannot name a retriever: use letters, digits, dots, dashes and underscores')
        return retrievers


@dataclass(frozen=True)
class DataPaths:
    """The files a build leaves, by split. `contexts` and `labels` exist for train and validation."""

    raw: Path
    passages: dict[str, Path]
    rankings: Path
    retrieval: Path
    questions: dict[str, Path]
    pools: dict[str, Path]
    hits: dict[str, Path]
    contexts: dict[str, Path]
    labels: dict[str, Path]

    def found(self, retriever: str, split: str) -> Path:
        """Return the file of what one retriever found."""
        return self.retrieval / retriever / f"{split}.parquet"

    def asked(self, split: str) -> SplitFiles:
        """Return one split as retrieval sees it."""
        from data_builders.retrieval import SplitFiles

        return SplitFiles(split, self.searched(split), self.questions[split], self.rankings)

    def searched(self, split: str) -> tuple[Path, ...]:
        """Return the files of passages that the questions of a split search."""
        return self.passages["shared"], self.passages[split]


def data_paths(folder: Path) -> DataPaths:
    """Return where `build_data` puts its files below its folder."""
    return DataPaths(
        raw=folder / "source",
        passages={name: folder / f"clean/passages-{name}.arrow" for name in ("shared", *SPLITS)},
        rankings=folder / "clean/rankings.parquet",
        retrieval=folder / "retrieval",
        questions={split: folder / f"clean/questions-{split}.arrow" for split in SPLITS},
        pools={split: folder / f"pools/{split}.parquet" for split in SPLITS},
        hits={split: folder / f"pools/{split}.arrow" for split in SPLITS},
        contexts={split: folder / f"contexts/{split}.parquet" for split in TRAINING_SPLITS},
        labels={split: folder / f"labels/{split}.parquet" for split in TRAINING_SPLITS},
    )


def build_data(settings: DataSettings, seed: int, folder: Path, *, report: Callable[[str], None]) -> None:
    """Build every step below `folder`, running only those whose inputs or files changed.

    Args:
        settings: the `data` section of a recipe.
        seed: seed of everything random; the same settings and seed give the same bytes.
        folder: the data folder of a run; made if missing.
        report: takes the lines a person reads.

    Raises:
        RagFtError: the sources' data break a contract, or the folder cannot be written.
    """
    from data_builders.data_steps import data_steps
    from data_builders.executor import Executor
    from data_builders.steps import run_steps

    executor = Executor(settings.executor, settings.processes)
    run_steps(data_steps(settings, seed, folder), seed, folder, report, executor)


def require_built(settings: DataSettings, seed: int, folder: Path) -> None:
    """Make sure that the files below `folder` are those these settings and this seed give.

    Raises:
        RagFtError: a step was not built, was built from something else, or lost or changed a file.
    """
    from data_builders.data_steps import data_steps
    from data_builders.steps import first_stale

    stale = first_stale(data_steps(settings, seed, folder), seed, folder)
    if stale:
        raise RagFtError(
            f"the data in {folder} are not those of this recipe: {stale}. Run `rag-ft build RECIPE` first."
        )
