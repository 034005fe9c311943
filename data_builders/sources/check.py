"""Which kind of source fits a file or folder, and what it makes of the first rows. Prints nothing; builds nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from data_builders.documents.read import SUFFIXES
from data_builders.errors import RagFtError
from data_builders.manifest import Tally
from data_builders.records import GoldEvidence, Passage, Question, Ranking
from data_builders.sources import documents
from data_builders.sources.beir import CORPUS, Beir, BeirSettings, beir_file
from data_builders.sources.files import CORPORA, FORMATS, FileSourceSettings
from data_builders.sources.hub import TABLES, Hub, HubSettings, hub_rows, hub_splits
from data_builders.sources.hub_guess import guess_columns
from data_builders.sources.jsonl import PASSAGES, QUESTIONS, split_name
from data_builders.sources.rows import BadRow, Format, Place, SourceRecord, json_rows, text_lines

ROWS = 20  # rows looked at: enough to meet optional fields, quick for any file
SHOWN = 3  # examples of what was parsed
_ENTRIES = 20_000  # files of a folder that are looked at
_NOSUFFIXES = ("readme", "license", "licence", "changelog")


@dataclass(frozen=True)
class Example:
    """A parsed question (None in a file of passages alone), its first passage (gold if known) and its first ranking."""

    question: Question | None
    passage: Passage | None
    ranking: Ranking | None


@dataclass(frozen=True)
class Verdict:
    """How well one kind fits.

    Attributes:
        kind: its name, with the setting in brackets where the file is not the one with the questions.
        settings: a source of that kind as a recipe states it.
        fitting: how many of the `rows` looked at fit.
        reason: why it does not fit: the first row that does not, or why none could be read; empty if all fit.
        records: what the fitting rows hold.
        note: what to know when using it.
        hints: key of the settings -> what a comment beside it says.
    """

    kind: str
    settings: dict[str, Any]
    rows: int = 0
    fitting: int = 0
    reason: str = ""
    records: tuple[SourceRecord, ...] = ()
    note: str = ""
    hints: Mapping[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether everything looked at fits."""
        return not self.reason

    def counts(self) -> dict[str, int]:
        """Return how much of what was found, in words."""
        questions = [record for record in self.records if isinstance(record, Question)]
        return {
            "questions": len(questions),
            "with answers": sum(bool(question.answers) for question in questions),
            "with gold passages": sum(bool(question.gold) for question in questions),
            "unanswerable": sum(not question.answers and not question.gold for question in questions),
            "passages": len({record.id for record in self.records if isinstance(record, Passage)}),
            "rankings": sum(isinstance(record, Ranking) for record in self.records),
        }

    def examples(self) -> list[Example]:
        """Return the first few questions, or passages where there are no questions."""
        passages = {record.id: record for record in self.records if isinstance(record, Passage)}
        rankings: dict[str, Ranking] = {}
        for record in self.records:
            if isinstance(record, Ranking):
                rankings.setdefault(record.question, record)
        questions = [record for record in self.records if isinstance(record, Question)][:SHOWN]
        if not questions:
            return [Example(None, passage, None) for passage in islice(passages.values(), SHOWN)]
        return [_example(question, passages, rankings.get(question.id)) for question in questions]


def check_path(path: Path) -> list[Verdict]:
    """Try every kind of source on a file or folder; the best one comes first.

    Kinds that fit come before those that fit some rows, and those before the rest. Of several that fit, the one that
    makes most of the rows is best: gold first, then evidence, rankings, passages and answers.

    Raises:
        RagFtError: there is nothing there, or it cannot be read as anything.
    """
    if path.is_dir():
        found = list(_folder(path))
    elif path.is_file():
        found = list(_file(path, path))
    else:
        raise RagFtError(
            f"there is no file or folder {path} (seen from {Path.cwd()}): give the path of your data. "
            "A data set of the Hub needs no check: kind: hub lists its columns where one is not found."
        )
    return sorted(found, key=_worth, reverse=True)


def _worth(verdict: Verdict) -> tuple[Any, ...]:
    of_question = Counter[str]()
    for record in verdict.records:
        if isinstance(record, Question):
            of_question.update(gold=len(record.gold), evidence=len(record.evidence), answers=len(record.answers))
    counts = verdict.counts()
    share = verdict.fitting / verdict.rows if verdict.rows else 0.0
    parsed = (of_question["gold"], of_question["evidence"], counts["rankings"], counts["passages"])
    return (verdict.fits, share, *parsed, of_question["answers"])


def _example(question: Question, passages: dict[str, Passage], ranking: Ranking | None) -> Example:
    ids = [*question.gold, *(ranking.passages if ranking else ())]
    return Example(question, next((passages[id_] for id_ in ids if id_ in passages), None), ranking)


def _file(path: Path, whole: Path) -> Iterator[Verdict]:
    """Judge one file; as a table with columns it is judged together with the folder it stands for."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in SUFFIXES:
        yield _documents(path.parent, Counter([suffix]))
        return
    if path.name.removesuffix(".gz") in ("corpus.jsonl", "queries.jsonl") and (path.parent / "qrels").is_dir():
        yield _beir(path.parent)
        return
    found = [] if suffix in TABLES and TABLES[suffix][0] != "json" else list(_rows(path))
    yield from found
    if not any(verdict.fitting for verdict in found):
        yield _table(whole)


def _folder(path: Path) -> Iterator[Verdict]:
    endings = Counter(_endings(path))
    if _is_beir(path):
        yield _beir(path)
        return
    rows = [file for file in sorted(path.iterdir()) if _is_rows(file)]
    if rows:
        note = f"looked at {rows[0].name} alone: path may name the other files of rows ({len(rows) - 1}) as well"
        found = _file(rows[0], path)
        yield from (
            replace(verdict, note=note) if len(rows) > 1 and verdict.kind != "hub" else verdict for verdict in found
        )
    elif any(ending in TABLES for ending in endings):
        yield _table(path)
    readable = Counter({ending: count for ending, count in endings.items() if ending in SUFFIXES})
    if readable:
        yield _documents(path, readable)
    elif not any(ending in TABLES for ending in endings) and not rows:
        raise RagFtError(
            f"{path} holds no rows or tables ({', '.join(TABLES)}) and no documents ({', '.join(SUFFIXES)}): "
            "name the file or folder with your data."
        )


def _is_beir(folder: Path) -> bool:
    """Tell a BEIR folder, one that lacks a file too, from others with a corpus.jsonl (FlashRAG)."""
    here = {name for name in ("corpus", "queries") for end in ("", ".gz") if (folder / f"{name}.jsonl{end}").is_file()}
    if "corpus" not in here:
        return False
    first = next(json_rows(beir_file(folder, "corpus")), None)
    return "queries" in here or (isinstance(first, dict) and "_id" in first)


def _is_rows(file: Path) -> bool:
    return file.is_file() and file.name.removesuffix(".gz").endswith((".json", ".jsonl"))


def _endings(folder: Path) -> Iterator[str]:
    """Yield the endings of the files in a folder and below, hidden ones and papers about the data left out."""
    seen = 0
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            seen += 1
            if seen > _ENTRIES:
                return
            if not name.startswith(".") and not name.lower().startswith(_NOSUFFIXES):
                yield Path(name.removesuffix(".gz")).suffix.lower()


def _documents(folder: Path, endings: Counter[str]) -> Verdict:
    files = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
    note = f"documents to cut into passages: {files}. Questions about them come from a file of their own."
    return Verdict("documents", {"kind": "documents", "path": str(folder)}, note=note)


def _beir(folder: Path) -> Verdict:
    settings = {"kind": "beir", "path": str(folder)}
    source = Beir(BeirSettings(kind="beir", path=str(folder)), "mine", 0)
    try:
        passages = _parsed(CORPUS, list(islice(json_rows(beir_file(folder, "corpus")), ROWS)), settings, folder)
        questions = list(islice(source.questions(Tally()), ROWS))
    except RagFtError as error:
        return Verdict("beir", settings, reason=str(error))
    records = (*questions, *passages.records)
    note = "" if any(question.answers for question in questions) else "its queries have no answers: name a file of them"
    rows, fitting = passages.rows + len(questions), passages.fitting + len(questions)
    return Verdict("beir", settings, rows, fitting, passages.reason, records, note)


def _table(path: Path) -> Verdict:
    """Judge a table, the first split of several, by the names of its columns."""
    settings: dict[str, Any] = {"kind": "hub", "dataset": str(path)}
    try:
        if path.is_file() and not any(line.strip() for line in text_lines(path)):
            return Verdict("hub", settings, reason="the file is empty")
        names = hub_splits(HubSettings(kind="hub", dataset=str(path)))
        ours = {split_name(name): name for name in names if split_name(name)}
        settings["splits"] = ours if len(ours) > 1 else names[0]
        rows = list(islice(hub_rows(HubSettings(kind="hub", dataset=str(path)), names[0]), ROWS))
        columns = guess_columns(rows[0]) if rows else {}
        if rows and "question" not in columns:
            return Verdict("hub", settings, reason=f"name its columns under columns: {', '.join(rows[0])}")
        settings["columns"] = columns
        trial = HubSettings.model_validate({**settings, "splits": names[0]}, strict=False)
        return _parsed(Hub(trial, "mine", 0).format, rows, settings, path)
    except RagFtError as error:
        return Verdict("hub", settings, reason=str(error))


def _rows(path: Path) -> Iterator[Verdict]:
    """Try the formats of rows of JSON; the error is raised if it is no JSON for any of them."""
    candidates = list(_candidates(str(path)))
    read: dict[str, list[Any] | RagFtError] = {}
    for items in dict.fromkeys(format_.items for format_, _ in candidates):
        try:
            read[items] = list(islice(json_rows(path, items), ROWS))
        except RagFtError as error:
            read[items] = error
    errors = [result for result in read.values() if isinstance(result, RagFtError)]
    if len(errors) == len(read):
        raise errors[0]
    for format_, settings in candidates:
        rows = read[format_.items]
        if isinstance(rows, RagFtError):
            yield Verdict(format_.kind, settings, reason="it is one JSON document, not rows")
        else:
            verdict = _parsed(format_, rows, settings, path)
            yield _SECOND_LOOK[format_.kind](verdict) if format_.kind in _SECOND_LOOK else verdict


def _candidates(path: str) -> Iterator[tuple[Format, dict[str, Any]]]:
    """Yield every format with the source settings that read `path` in it; other files get a name to fill in."""
    classes = {get_args(cls.model_fields["kind"].annotation)[0]: cls for cls in get_args(FileSourceSettings)}
    yield QUESTIONS, {"kind": "jsonl", "path": path}
    for kind, format_ in FORMATS.items():
        needed = [name for name, field in classes[kind].model_fields.items() if field.is_required()]
        others = {name: f"{name.upper()}.jsonl" for name in needed if name not in ("kind", "path")}
        yield format_, {"kind": kind, "path": path, **others}
    yield _ASKED, {"kind": "documents", "path": "FOLDER", "questions": path}
    yield PASSAGES, {"kind": "jsonl", "path": "QUESTIONS.jsonl", "passages": path}
    for kind, (key, format_) in CORPORA.items():
        yield format_, {"kind": kind, "path": "QUESTIONS.jsonl", key: path}


def _asked(row: dict[str, Any], place: Place) -> Iterator[Question]:
    """Yield a question about documents; what it names in them stands as evidence, its passages are found later."""
    for asked in documents.parse_question(row, place):
        named = (GoldEvidence(wanted.document, wanted.quote, wanted.reason) for wanted in asked.wanted)
        yield replace(asked.question, evidence=tuple(named))


def _about_documents(verdict: Verdict) -> Verdict:
    """Refuse rows of which none names a document or a quote: they may be questions about anything."""
    if any(isinstance(record, Question) and record.evidence for record in verdict.records):
        return verdict
    reason = verdict.reason or "no row names a document or a quote"
    return replace(verdict, fitting=0, reason=reason, records=())


def _with_passages(verdict: Verdict) -> Verdict:
    """Ask for the file of the passages where rows name gold and show no passage."""
    named = any(isinstance(record, Question) and record.gold for record in verdict.records)
    if not named or any(isinstance(record, Passage) for record in verdict.records):
        return verdict
    hint = "the file that holds the passages named by gold"
    settings = {**verdict.settings, "passages": "YOUR_PASSAGES.jsonl"}
    return replace(verdict, settings=settings, hints={"passages": hint})


_ASKED = replace(documents.QUESTIONS, parse=_asked)
_SECOND_LOOK: dict[str, Callable[[Verdict], Verdict]] = {_ASKED.kind: _about_documents, QUESTIONS.kind: _with_passages}


def _parsed(format_: Format, rows: list[Any], settings: dict[str, Any], path: Path) -> Verdict:
    records: list[SourceRecord] = []
    problems = []
    for number, row in enumerate(rows, start=1):
        try:
            if not isinstance(row, dict):
                raise BadRow("it", "is not an object with fields")
            records.extend(list(format_.parse(row, Place("mine", path.name, number))))
        except BadRow as error:
            problems.append(f"row {number}: {error.field} {error.problem}")
    none = f"no rows{f' under {format_.items[:-5]}' if format_.items != 'item' else ''}"
    reason = problems[0] if problems else "" if rows else none
    return Verdict(format_.kind, settings, len(rows), len(rows) - len(problems), reason, tuple(records))
