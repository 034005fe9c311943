"""Has questions written about the passages of the sources, beside those that the sources brought. See synthesis/."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from data_builders.clean_passages import SHARED, clean_passages
from data_builders.corpus import Corpus
from data_builders.files import atomic_path
from data_builders.manifest import Tally
from data_builders.records import Question
from data_builders.retrieval import prepare_index
from data_builders.retrievers import Query, open_retriever
from data_builders.retrievers.settings import Bm25Settings
from data_builders.servers import Call
from data_builders.servers.budget import price_of
from data_builders.servers.job import ask_again, identity_of, not_kept, teacher_job
from data_builders.sources.rows import SPLITS
from data_builders.steps import Bench
from data_builders.synthesis.others import Search
from data_builders.synthesis.plan import synthesis_calls
from data_builders.synthesis.prompts import read_template
from data_builders.synthesis.settings import TeacherQuestionsSettings
from data_builders.synthesis.written import Rejected, Synthesis, refuse_nothing, write_synthesis
from data_builders.tables import read_questions, write_records

QUESTIONS, LISTED = "questions.parquet", "rejected.jsonl"


@dataclass(frozen=True)
class SynthesisFiles:
    """What the step reads, and where replies are kept: outside its own folder, which is rebuilt."""

    passages: Path
    questions: Path
    replies: Path


def synthesis_identity(settings: TeacherQuestionsSettings) -> dict[str, Any]:
    """Return what of the settings decides the questions, for the manifest: not where or how fast they are asked for.

    The template is known by its words (`synthesis_outside`).
    """
    plain = settings.model_dump(mode="json", exclude={"template", "endpoint"})
    return {**plain, "endpoint": identity_of(settings.endpoint)}


def synthesis_outside(settings: TeacherQuestionsSettings, folder: Path) -> dict[str, Any]:
    """Return what outside of the recipe decides the questions: the words of the template, calls to be asked again."""
    return {**ask_again(folder), "template": read_template(settings.template).sha256}


def write_questions_of_teacher(
    settings: TeacherQuestionsSettings,
    bm25: Bm25Settings,
    files: SynthesisFiles,
    sources: Sequence[str],
    seed: int,
    bench: Bench,
) -> None:
    """Write the questions of the sources and, behind them, those the teacher wrote; list what was turned away.

    Raises:
        RagFtError: the server or the template is at fault, the budget is spent, or no question is left.
    """
    corpus = open_passages(files.passages, bench.parts)
    synthesis = Synthesis(settings, corpus, sources, seed)
    planned = synthesis.plan(bench.tally)
    asker = teacher_job(settings.endpoint, files.replies, bench.report, len(planned))
    search = _search(bm25, corpus, bench)
    before = read_questions(files.questions)
    written, rejected = write_synthesis(synthesis, planned, asker, search, before, bench.tally)
    _list(rejected, bench)
    own = pq.ParquetFile(files.questions).metadata.num_rows
    refuse_nothing(len(written), rejected, own, str(bench.target / LISTED))
    questions = chain(read_questions(files.questions), written)
    bench.tally.rows[QUESTIONS] = write_records(bench.target / QUESTIONS, Question, questions)


def open_passages(raw: Path, folder: Path) -> Corpus:
    """Return the passages of the sources as they will be searched, each text once; files of them go to `folder`."""
    targets = {name: folder / f"passages-{name}.arrow" for name in (SHARED, *SPLITS)}
    folder.mkdir(parents=True, exist_ok=True)
    clean_passages(raw, targets, Tally())  # counted by the step of that name
    return Corpus.open([*targets.values()])


def price_questions(
    settings: TeacherQuestionsSettings, files: SynthesisFiles, sources: Sequence[str], seed: int
) -> str:
    """Return in a line what the questions of a recipe still cost, by the prompts as they are; ask nothing.

    The step `source` has to be built.
    """
    calls = not_kept(calls_to_price(settings, files.passages, sources, seed), settings.endpoint, files.replies)
    return f"questions still to be asked for: {price_of(calls, settings.endpoint).told()}"


def calls_to_price(settings: TeacherQuestionsSettings, raw: Path, sources: Sequence[str], seed: int) -> Iterator[Call]:
    """Yield the calls that questions for the passages of `raw` (source/passages.parquet) take, without making them."""
    with TemporaryDirectory() as folder:
        prefixes = sources if len(sources) > 1 else ()
        yield from synthesis_calls(settings, open_passages(raw, Path(folder)), seed, prefixes)


def _search(bm25: Bm25Settings, corpus: Corpus, bench: Bench) -> Search:
    """Return a search of the corpus; the index is made when it is first needed."""
    retriever = open_retriever(bm25, Path())
    opened: list[Path] = []

    def search(questions: Sequence[str], depth: int) -> list[list[int]]:
        if not opened:
            opened.append(prepare_index(retriever, corpus, bench.report))
            retriever.open(corpus, opened[0])
        found = retriever.search([Query("", question) for question in questions], depth)
        return [one.positions.tolist() for one in found]

    return search


def _list(rejected: Sequence[Rejected], bench: Bench) -> None:
    with atomic_path(bench.target / LISTED) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for one in rejected:
            stream.write(json.dumps(one.row(), ensure_ascii=False) + "\n")
    bench.tally.rows[LISTED] = len(rejected)
