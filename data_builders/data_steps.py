"""The steps of a build: what each depends on, reads and writes, and the work it does. Holds no settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from data_builders.clean_hygiene import Hygiene, apply_hygiene
from data_builders.clean_passages import clean_passages
from data_builders.clean_questions import Asking, drop_unusable, write_questions, write_rankings
from data_builders.context_step import advise, write_contexts
from data_builders.corpus import Corpus
from data_builders.data_settings import DataSettings
from data_builders.import_step import FILES, import_sources, signatures
from data_builders.label_step import (
    REJECTED,
    LabelFiles,
    LocalWriter,
    label_identity,
    labels_outside,
    write_labels,
    write_written_labels,
)
from data_builders.labels.settings import GoldLabelsSettings
from data_builders.paths import TRAINING_SPLITS, DataPaths, data_paths
from data_builders.pools import Judging, gold_in, write_pools
from data_builders.records import Passage, Question
from data_builders.retrieval import search_split
from data_builders.retrievers import retriever_names
from data_builders.retrievers.settings import Bm25Settings
from data_builders.sources import open_source
from data_builders.sources.rows import SPLITS
from data_builders.steps import Bench, Step
from data_builders.synthesis_step import (
    LISTED,
    QUESTIONS,
    SynthesisFiles,
    synthesis_identity,
    synthesis_outside,
    write_questions_of_teacher,
)

# Raise one when its step writes something else.
_VERSIONS = {"source": 5, "synthesis": 4, "clean": 3, "retrieval": 2, "pools": 4, "contexts": 6, "labels": 8}


@dataclass(frozen=True)
class _Build:
    """What the work of every step needs."""

    settings: DataSettings
    seed: int
    folder: Path
    local: LocalWriter | None = None

    @property
    def paths(self) -> DataPaths:
        """Where the files are."""
        return data_paths(self.folder)

    @property
    def raw(self) -> list[Path]:
        """What the sources gave."""
        return [self.paths.raw / name for name in FILES.values()]

    @property
    def given(self) -> list[Path]:
        """What is cleaned: what the sources gave, the questions with those of a teacher where one is asked."""
        passages, questions, rankings = self.raw
        return [passages, self.paths.synthesis / QUESTIONS if self.settings.questions else questions, rankings]

    @property
    def clean(self) -> list[Path]:
        """What is searched and asked."""
        return [*self.paths.passages.values(), self.paths.rankings, *self.paths.questions.values()]

    def found(self, split: str) -> dict[str, Path]:
        """What every retriever found for a split."""
        return {name: self.paths.found(name, split) for name in retriever_names(self.settings.retrievers)}

    def step(
        self, name: str, reads: list[Path], writes: list[Path], depends: dict[str, Any], work: Callable[[Bench], None]
    ) -> Step:
        """Declare a step; the first part of its name says which version counts."""
        needs = tuple(path.relative_to(self.folder).as_posix() for path in reads)
        return Step(name, _VERSIONS[name.split("/")[0]], depends, needs, tuple(file.name for file in writes), work)


def data_steps(settings: DataSettings, seed: int, folder: Path, local: LocalWriter | None = None) -> list[Step]:
    """Declare the steps of a build in order; `local` is asked for self-synthesis, when building."""
    build = _Build(settings, seed, folder, local)
    questions = [_source(build), *_synthesis(build), _clean(build)]
    return [*questions, *_retrieval(build), _pools(build), _contexts(build), _labels(build)]


def _plain(build: _Build, *keys: str) -> dict[str, Any]:
    return build.settings.model_dump(mode="json", include=set(keys))


def _training(files: Mapping[str, Path]) -> list[Path]:
    return [files[split] for split in TRAINING_SPLITS]


def _source(build: _Build) -> Step:
    depends = {"sources": {name: _without_weight(one) for name, one in _plain(build, "sources")["sources"].items()}}

    def work(bench: Bench) -> None:
        named = build.settings.sources.items()
        sources = {name: open_source(name, one, build.seed) for name, one in named}
        import_sources(sources, bench, need_questions=build.settings.questions is None)

    step = build.step("source", [], build.raw, depends, work)
    return _watching(step, depends["sources"].values())


def _watching(step: Step, named: Iterable[dict[str, Any]]) -> Step:
    """Return the step, to be run again also when a file that some of its settings name has changed."""
    return replace(step, outside=partial(signatures, list(named)))


def _without_weight(source: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key != "weight"}


def _synthesis(build: _Build) -> list[Step]:
    settings, paths = build.settings.questions, build.paths
    if settings is None:
        return []
    bm25 = next((one for one in build.settings.retrievers if isinstance(one, Bm25Settings)), Bm25Settings())
    sources, files = [*build.settings.sources], synthesis_files(paths)

    def work(bench: Bench) -> None:
        write_questions_of_teacher(settings, bm25, files, sources, build.seed, bench)

    depends = {"questions": synthesis_identity(settings), "sources": sources, "bm25": bm25.model_dump(mode="json")}
    writes = [paths.synthesis / QUESTIONS, paths.synthesis / LISTED]
    step = build.step("synthesis", [files.passages, files.questions], writes, depends, work)
    return [replace(step, outside=partial(synthesis_outside, settings, paths.synthesis))]


def synthesis_files(paths: DataPaths) -> SynthesisFiles:
    """Return what the questions of a teacher are made from, and where the replies are kept."""
    passages, questions = (paths.raw / FILES[kind] for kind in (Passage, Question))
    return SynthesisFiles(passages, questions, paths.raw.parent / "replies/questions.sqlite")


def _clean(build: _Build) -> Step:
    depends = _plain(build, "splits", "sample", "gold", "hygiene", "decontaminate")

    def work(bench: Bench) -> None:
        settings, paths = build.settings, build.paths
        passages, questions, rankings = build.given
        aliases = clean_passages(passages, paths.passages, bench.tally)
        asking = Asking.read(questions, bench.tally)
        drop_unusable(asking, settings.gold, bench.tally)
        hygiene = Hygiene(settings.splits, settings.hygiene, settings.decontaminate, build.seed)
        apply_hygiene(asking, paths, aliases, hygiene, bench.tally)
        write_questions(asking, paths, aliases, settings.sample or {}, build.seed, bench)
        bench.tally.rows[paths.rankings.name] = write_rankings(rankings, paths.rankings, asking, aliases)

    step = build.step("clean", build.given, build.clean, depends, work)
    return _watching(step, depends["decontaminate"].values())


def _retrieval(build: _Build) -> list[Step]:
    steps = []
    names = retriever_names(build.settings.retrievers)
    for name, settings in zip(names, build.settings.retrievers, strict=True):

        def work(bench: Bench, settings: Any = settings) -> None:
            for split in SPLITS:
                search_split(settings, build.settings.depth, build.paths.asked(split), bench, f"{split}.parquet")

        own = settings.model_dump(mode="json")
        files = [build.paths.found(name, split) for split in SPLITS]
        depends = {"retriever": own, "depth": build.settings.depth}
        steps.append(_watching(build.step(f"retrieval/{name}", build.clean, files, depends, work), [own]))
    return steps


def _pools(build: _Build) -> Step:
    paths = build.paths

    def work(bench: Bench) -> None:
        held_out: frozenset[int] = frozenset()
        shared = len(Corpus.open([paths.passages["shared"]]))  # these stand first, at the same places in every split
        for split in reversed(SPLITS):
            judging = Judging(build.settings.ranking, build.settings.guard, build.settings.gold, held_out)
            files = (paths.pools[split].name, paths.hits[split].name)
            write_pools(paths.asked(split), build.found(split), judging, bench, files)
            if build.settings.gold == "answer_match":
                held_out |= {position for position in gold_in(bench.target / files[1]) if position < shared}

    found = [file for split in SPLITS for file in build.found(split).values()]
    writes = [*paths.pools.values(), *paths.hits.values()]
    depends = _plain(build, "ranking", "guard", "gold")
    step = build.step("pools", [*build.clean, *found], writes, depends, work)
    return _watching(step, filter(None, [depends["guard"]["cross_encoder"]]))


def _contexts(build: _Build) -> Step:
    depends = _plain(build, "negatives", "contexts")
    depends["contexts"].pop("gold_absent")  # the labels' business
    depends["weights"] = {name: one.weight for name, one in build.settings.sources.items() if one.weight is not None}
    depends["guard"] = build.settings.guard.answers

    def work(bench: Bench) -> None:
        write_contexts(build.settings, build.seed, build.paths, bench)
        advise(build.settings, bench.tally)

    paths = build.paths
    passages = [paths.passages["shared"], *_training(paths.passages)]
    reads = [*passages, *_training(paths.questions), *_training(paths.hits)]
    return build.step("contexts", reads, [*paths.contexts.values()], depends, work)


def _labels(build: _Build) -> Step:
    paths, settings, gold_absent = build.paths, build.settings.labels, build.settings.contexts.gold_absent

    def work(bench: Bench) -> None:
        if not isinstance(settings, GoldLabelsSettings):
            return write_written_labels(label_files(paths), settings, gold_absent, build.local, build.seed, bench)
        for name in REJECTED:  # of a teacher before
            (bench.target / name).unlink(missing_ok=True)
        for split in TRAINING_SPLITS:
            write_labels(paths.contexts[split], paths.questions[split], gold_absent, bench)

    depends = {"labels": label_identity(settings), "gold_absent": gold_absent}
    reads = [*_training(paths.questions), *paths.contexts.values()]
    step = build.step("labels", reads, [*paths.labels.values()], depends, work)
    return replace(step, outside=partial(labels_outside, settings, build.local, build.folder / "labels"))


def label_files(paths: DataPaths) -> LabelFiles:
    """Return what the labels of a build are made from."""
    return LabelFiles(tuple(_training(paths.contexts)), tuple(_training(paths.questions)), paths.replies)
