"""Applies hygiene to the questions of a build: each asked once, in one split, and in no evaluation set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_builders.clean_passages import Aliases
from data_builders.clean_questions import LEFT_OUT, Asking, stayed
from data_builders.corpus import Corpus
from data_builders.files import content_hash
from data_builders.hygiene.decontamination import Fingerprints, contaminations
from data_builders.hygiene.duplicates import repeated_questions
from data_builders.hygiene.settings import HygieneSettings, SplitsSettings
from data_builders.hygiene.splits import asked, assign_splits
from data_builders.import_step import FILES
from data_builders.manifest import Tally
from data_builders.paths import TRAINING_SPLITS, DataPaths
from data_builders.records import Passage, Question, Ranking
from data_builders.sources import open_source
from data_builders.sources.rows import SPLITS
from data_builders.tables import read_rankings

_BATCH = 2000


@dataclass(frozen=True)
class Hygiene:
    """What is done to keep splits apart. `evaluation_sets` are source settings by name."""

    splits: SplitsSettings
    same: HygieneSettings
    evaluation_sets: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class _Clean:
    """Questions and the passages that stay: by split those it searches, under "" all of them."""

    asking: Asking
    corpora: Mapping[str, Corpus]
    aliases: Aliases


def apply_hygiene(asking: Asking, paths: DataPaths, aliases: Aliases, hygiene: Hygiene, tally: Tally) -> None:
    """Decide the split of every question that is left, or leave it out; the tally learns why."""
    searched: dict[str, Sequence[Path]] = {split: paths.searched(split) for split in SPLITS}
    searched[""] = [*paths.passages.values()]
    clean = _Clean(asking, {split: Corpus.open(files) for split, files in searched.items()}, aliases)
    rows = asking.rows("", *SPLITS)
    tops = _tops(asking, rows, paths.raw / FILES[Ranking])
    facts = [asked(question, map(_with_document, gold)) for question, gold in _with_passages(clean, rows, tops)]
    if hygiene.same.repeated_questions == "drop":
        repeated = repeated_questions(facts, tally)
        for row, again in zip(rows, repeated, strict=True):
            asking.splits[row] = LEFT_OUT if again else asking.splits[row]
        facts = [one for one, again in zip(facts, repeated, strict=True) if not again]
        rows = [row for row, again in zip(rows, repeated, strict=True) if not again]
    decided = assign_splits(facts, hygiene.splits, hygiene.same.near_duplicate, hygiene.seed, tally)
    for row, split in zip(rows, decided, strict=True):
        asking.splits[row] = split or LEFT_OUT
    _decontaminate(clean, hygiene, tally)


def _tops(asking: Asking, rows: Sequence[int], rankings: Path) -> dict[str, str]:
    """Return, for questions annotated as unanswerable, the passage that their source ranks first.

    It is what such a question was written about (SQuAD 2.0), so it tells the document to keep together.
    """
    blank = {question.id for question in asking.questions(rows) if not question.answers and not question.gold}
    if not blank:
        return {}
    return {one.question: one.passages[0] for one in read_rankings(rankings) if one.question in blank and one.passages}


def _with_passages(
    clean: _Clean, rows: Sequence[int], tops: Mapping[str, str]
) -> Iterator[tuple[Question, list[Passage]]]:
    """Yield questions with the passages they are about: gold, or what `tops` names."""
    return _with_gold(clean, rows, lambda question: question.gold or tuple(filter(None, [tops.get(question.id)])))


def _with_document(passage: Passage) -> Passage:
    """Let a passage without a document be one itself, told by its text: splits may give one id to two passages."""
    return passage if passage.document else replace(passage, document=content_hash([passage.title, passage.text]))


def _decontaminate(clean: _Clean, hygiene: Hygiene, tally: Tally) -> None:
    """Leave out what an evaluation set holds; what the run's own test holds too is only counted."""
    asking = clean.asking
    named = {name: _fingerprints(name, settings, hygiene) for name, settings in hygiene.evaluation_sets.items()}
    rows = asking.rows(*TRAINING_SPLITS)
    for row, reason in zip(rows, _reasons(clean, rows, named, hygiene.same), strict=True):
        if reason:
            asking.drop(row, f"training questions: {reason}", tally)
    tests, training = asking.rows("test"), asking.rows("train")
    pairs = list(_texts(clean, tests))
    own = Fingerprints.of(
        (question for question, _ in pairs), (text for _, texts in pairs for text in texts), hygiene.same
    )
    for reason in _reasons(clean, training, {"the test split": own}, hygiene.same):
        if reason:
            tally.count(f"training questions kept although: {reason}")


def _fingerprints(name: str, settings: Any, hygiene: Hygiene) -> Fingerprints:
    return Fingerprints.of_source(
        lambda: open_source(f"decontaminate.{name}", settings, hygiene.seed).records(Tally()), hygiene.same
    )


def _reasons(
    clean: _Clean, rows: Sequence[int], known: Mapping[str, Fingerprints], same: HygieneSettings
) -> Iterable[str]:
    if not known:
        return [""] * len(rows)
    texts = _texts(clean, rows)
    return contaminations(texts if same.passages else ((question, ()) for question, _ in texts), known, same)


def _texts(clean: _Clean, rows: Sequence[int]) -> Iterator[tuple[str, list[str]]]:
    for question, gold in _with_gold(clean, rows):
        yield question.question, [passage.text for passage in gold]


def _gold(question: Question) -> tuple[str, ...]:
    return question.gold


def _with_gold(
    clean: _Clean, rows: Sequence[int], named: Callable[[Question], tuple[str, ...]] = _gold
) -> Iterator[tuple[Question, list[Passage]]]:
    """Yield questions with those of the passages they name that are there; undecided ones look in every split."""
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        questions = list(clean.asking.questions(batch))
        gold: list[list[Passage]] = [[] for _ in batch]
        splits = [clean.asking.splits[row] for row in batch]
        for split in set(splits):
            places = [place for place, own in enumerate(splits) if own == split]
            _find(clean, split, {place: named(questions[place]) for place in places}, gold)
        yield from zip(questions, gold, strict=True)


def _find(clean: _Clean, split: str, ids: Mapping[int, Iterable[str]], gold: list[list[Passage]]) -> None:
    corpus = clean.corpora[split]
    named = [(place, id_) for place, own in ids.items() for id_ in stayed(own, split, clean.aliases)]
    positions = corpus.positions(pa.array([id_ for _, id_ in named], pa.string())).tolist()
    for (place, _), position in zip(named, positions, strict=True):
        if position >= 0:
            gold[place].append(corpus[position])
