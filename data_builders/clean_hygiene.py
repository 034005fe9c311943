"""Applies hygiene to the questions of a build: each asked once, in one split, and in no evaluation set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from data_builders.build import TRAINING_SPLITS, DataPaths
from data_builders.clean_questions import LEFT_OUT, Asking
from data_builders.corpus import Corpus
from data_builders.hygiene.decontamination import Fingerprints, contaminations
from data_builders.hygiene.duplicates import repeated_questions
from data_builders.hygiene.settings import HygieneSettings, SplitsSettings
from data_builders.hygiene.splits import asked, assign_splits
from data_builders.manifest import Tally
from data_builders.records import Passage, Question
from data_builders.sources import open_source
from data_builders.sources.rows import SPLITS

_BATCH = 2000


@dataclass(frozen=True)
class Hygiene:
    """What is done to keep splits apart. `evaluation_sets` are source settings by name."""

    splits: SplitsSettings
    same: HygieneSettings
    evaluation_sets: Mapping[str, Any]
    seed: int


def apply_hygiene(asking: Asking, paths: DataPaths, hygiene: Hygiene, tally: Tally) -> None:
    """Decide the split of every question that is left, or leave it out; the tally learns why."""
    corpora = [Corpus.open([path]) for path in paths.passages.values()]
    rows = asking.rows("", *SPLITS)
    facts = [asked(question, gold) for question, gold in _with_gold(asking, rows, corpora)]
    if hygiene.same.repeated_questions == "drop":
        repeated = repeated_questions(facts, tally)
        for row, again in zip(rows, repeated, strict=True):
            asking.splits[row] = LEFT_OUT if again else asking.splits[row]
        facts = [one for one, again in zip(facts, repeated, strict=True) if not again]
        rows = [row for row, again in zip(rows, repeated, strict=True) if not again]
    decided = assign_splits(facts, hygiene.splits, hygiene.same.near_duplicate, hygiene.seed, tally)
    for row, split in zip(rows, decided, strict=True):
        asking.splits[row] = split or LEFT_OUT
    _decontaminate(asking, corpora, hygiene, tally)


def _decontaminate(asking: Asking, corpora: Sequence[Corpus], hygiene: Hygiene, tally: Tally) -> None:
    """Leave out what an evaluation set holds; what the run's own test holds too is only counted."""
    named = {name: _fingerprints(name, settings, hygiene) for name, settings in hygiene.evaluation_sets.items()}
    rows = asking.rows(*TRAINING_SPLITS)
    for row, reason in zip(rows, _reasons(asking, rows, corpora, named, hygiene.same), strict=True):
        if reason:
            asking.drop(row, f"training questions: {reason}", tally)
    tests, training = asking.rows("test"), asking.rows("train")
    pairs = list(_texts(asking, tests, corpora))
    own = Fingerprints.of(
        (question for question, _ in pairs), (text for _, texts in pairs for text in texts), hygiene.same
    )
    for reason in _reasons(asking, training, corpora, {"the test split": own}, hygiene.same):
        if reason:
            tally.count(f"training questions kept although: {reason}")


def _fingerprints(name: str, settings: Any, hygiene: Hygiene) -> Fingerprints:
    return Fingerprints.of_source(
        lambda: open_source(f"decontaminate.{name}", settings, hygiene.seed).records(Tally()), hygiene.same
    )


def _reasons(
    asking: Asking,
    rows: Sequence[int],
    corpora: Sequence[Corpus],
    known: Mapping[str, Fingerprints],
    same: HygieneSettings,
) -> Iterable[str]:
    if not known:
        return [""] * len(rows)
    texts = _texts(asking, rows, corpora)
    return contaminations(texts if same.passages else ((question, ()) for question, _ in texts), known, same)


def _texts(asking: Asking, rows: Sequence[int], corpora: Sequence[Corpus]) -> Iterator[tuple[str, list[str]]]:
    for question, gold in _with_gold(asking, rows, corpora):
        yield question.question, [passage.text for passage in gold]


def _with_gold(
    asking: Asking, rows: Sequence[int], corpora: Sequence[Corpus]
) -> Iterator[tuple[Question, list[Passage]]]:
    """Yield questions with those of their gold passages that are there, whichever split's they are."""
    stream = asking.questions(rows)
    while batch := list(islice(stream, _BATCH)):
        ids = pa.array([id_ for question in batch for id_ in question.gold], pa.string())
        found: list[Passage | None] = [None] * len(ids)
        for corpus in corpora:
            positions = corpus.positions(ids)
            for place in np.flatnonzero(positions >= 0).tolist():
                found[place] = found[place] or corpus[int(positions[place])]
        golds = iter(found)
        for question in batch:
            yield question, [passage for _ in question.gold if (passage := next(golds)) is not None]
