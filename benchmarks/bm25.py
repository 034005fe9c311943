"""BM25: questions ranked per second against bm25s and rank-bm25, and what an index over a million passages takes.

Every side gets the same texts and questions, cuts them into the same words, and returns the best 50: text in, ranking
out, one process and one thread, in turns so that other work on the machine slows all of them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
import Stemmer
from rank_bm25 import BM25Okapi  # type: ignore[import-untyped, unused-ignore]

from benchmarks.results_file import write_result
from data_builders.corpus import BATCH_ROWS, Corpus, map_table
from data_builders.manifest import Tally
from data_builders.records import PASSAGE_SCHEMA, Passage, Question
from data_builders.retrievers import Query
from data_builders.retrievers.bm25 import Bm25
from data_builders.retrievers.settings import Bm25Settings
from data_builders.sources import open_source
from data_builders.sources.invented_world import InventedWorldSettings, QuestionCounts

DEPTH, ROUNDS = 50, 7
SIZES = (20_000, 200_000)
MILLION = 1_000_000
SETTINGS = Bm25Settings()
Search = Callable[[Sequence[str]], Any]


def main() -> None:
    """Measure and write everything."""
    numbers: dict[str, Any] = {}
    for size in SIZES:
        numbers[f"{size} passages of the invented world"] = compare(*world(size))
    numbers["1000000 passages of 100 words"] = million()
    write_result("bm25", numbers, "python -m benchmarks.bm25")


def world(size: int) -> tuple[list[str], list[str]]:
    """Return `size` passages (title and text) of the invented world and a thousand questions asked of it."""
    counts = QuestionCounts(train=1000, validation=0, test=1)
    settings = InventedWorldSettings(questions=counts, passages=size)
    texts: list[str] = []
    questions: list[str] = []
    for record in open_source("world", settings, 7).records(Tally()):
        if isinstance(record, Passage) and len(texts) < size:
            texts.append(f"{record.title}\n{record.text}")
        elif isinstance(record, Question):
            questions.append(record.question)
    return texts, questions


def compare(texts: list[str], questions: list[str]) -> dict[str, Any]:
    """Return seconds to index, questions per second and ratios of ours and the others on one corpus."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        ours = timed(seconds, "ours", lambda: our_search(texts, Path(folder)))
        numpy_, numba = timed(seconds, "bm25s", lambda: bm25s_searches(texts))
        rank = timed(seconds, "rank-bm25", lambda: rank_bm25_search(texts))
        same_scores(ours(questions[:100]), numpy_(questions[:100]))
        rates = rates_in_turn(
            {
                "ours": (ours, questions),
                "bm25s, numpy": (numpy_, questions[:200]),
                "bm25s, numba": (numba, questions),
                "rank-bm25": (rank, questions[:5]),
            }
        )
    return {
        "words per passage": round(statistics.mean(len(text.split()) for text in texts), 1),
        "seconds to index": {name: round(value, 1) for name, value in seconds.items()},
        "questions per second": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "ours is faster by": {
            name: round(statistics.median(a / b for a, b in zip(rates["ours"], values, strict=True)), 2)
            for name, values in rates.items()
            if name != "ours"
        },
    }


def timed(seconds: dict[str, float], name: str, make: Callable[[], Any]) -> Any:
    """Make something and note how long it took."""
    began = time.perf_counter()
    made = make()
    seconds[name] = time.perf_counter() - began
    return made


def rates_in_turn(sides: dict[str, tuple[Search, list[str]]]) -> dict[str, list[float]]:
    """Return questions per second of each side, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS + 1):
        for name, (search, questions) in sides.items():
            began = time.perf_counter()
            search(questions)
            if turn:  # the first round warms up
                rates[name].append(len(questions) / (time.perf_counter() - began))
    return rates


def our_search(texts: list[str], folder: Path) -> Search:
    """Index and open with the retriever of this project."""
    empty = [""] * len(texts)
    columns = [[str(number) for number in range(len(texts))], empty, texts, empty, [0] * len(texts), empty]
    corpus = Corpus(pa.table(dict(zip(PASSAGE_SCHEMA.names, columns, strict=True)), schema=PASSAGE_SCHEMA))
    retriever = opened(corpus, folder)
    return lambda questions: retriever.search([Query("", question) for question in questions], DEPTH)


def opened(corpus: Corpus, folder: Path) -> Bm25:
    """Build an index and open it."""
    retriever = Bm25(SETTINGS)
    retriever.build(corpus, folder, print)
    retriever.open(corpus, folder)
    return retriever


def cut(texts: Sequence[str], ids: bool = True) -> Any:
    """Cut texts into words with bm25s' own tokenizer, as our default settings do it."""
    stemmer = Stemmer.Stemmer("english")
    return bm25s.tokenize(
        list(texts), token_pattern=r"\w+", stopwords="en", stemmer=stemmer, return_ids=ids, show_progress=False
    )


def bm25s_searches(texts: list[str]) -> tuple[Search, Search]:
    """Index with bm25s and return its search with either backend over the same index."""
    plain = bm25s.BM25(k1=SETTINGS.k1, b=SETTINGS.b, method="lucene", backend="numpy")
    plain.index(cut(texts), show_progress=False)
    compiled = bm25s.BM25(k1=SETTINGS.k1, b=SETTINGS.b, method="lucene", backend="numba")
    compiled.scores, compiled.vocab_dict, compiled.nonoccurrence_array = plain.scores, plain.vocab_dict, None
    return (
        lambda questions: plain.retrieve(cut(questions), k=DEPTH, show_progress=False, backend_selection="numpy"),
        lambda questions: compiled.retrieve(cut(questions), k=DEPTH, show_progress=False),
    )


def rank_bm25_search(texts: list[str]) -> Search:
    """Index with rank-bm25 and return its search."""
    index = BM25Okapi(cut(texts, ids=False), k1=SETTINGS.k1, b=SETTINGS.b)
    positions = list(range(len(texts)))
    return lambda questions: [index.get_top_n(words, positions, DEPTH) for words in cut(questions, ids=False)]


def same_scores(ours: Sequence[Any], theirs: Any) -> None:
    """Stop unless both found the same scores: a faster search that finds other things proves nothing."""
    for found, scores in zip(ours, theirs.scores, strict=True):
        np.testing.assert_allclose(found.scores, scores[scores > 0], rtol=1e-6)


def million() -> dict[str, Any]:
    """Return time and memory of building and searching an index over a million passages, each in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "passages.arrow")
        (Path(folder) / "index").mkdir()
        found = {step: own_process(step, folder) for step in ("build", "search")}
        size = sum(file.stat().st_size for file in (Path(folder) / "index").iterdir())
    return {**found["build"], **found["search"], "bytes of index per passage": round(size / MILLION)}


def own_process(step: str, folder: str) -> dict[str, Any]:
    """Run a step of this file in a fresh process and return what it measured."""
    command = [sys.executable, "-m", "benchmarks.bm25", step, folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    return json.loads(done.stdout.splitlines()[-1])


def write_corpus(path: Path) -> None:
    """Write passages of 90 to 110 words, drawn from a million words by Zipf's law (exponent 1.07)."""
    rng = np.random.default_rng(1)
    vocabulary = [word(number) for number in range(MILLION)]
    shares = np.cumsum(1 / (np.arange(MILLION) + 2.7) ** 1.07)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, PASSAGE_SCHEMA) as writer:
        for start in range(0, MILLION, BATCH_ROWS):
            lengths = rng.integers(90, 111, min(BATCH_ROWS, MILLION - start))
            drawn = iter(np.searchsorted(shares, rng.random(lengths.sum()) * shares[-1]).tolist())
            texts = [" ".join(vocabulary[number] for number in islice(drawn, int(length))) for length in lengths]
            empty, ids = [""] * len(texts), [f"p{start + number}" for number in range(len(texts))]
            columns = [ids, empty, texts, empty, [0] * len(texts), empty]
            writer.write_batch(
                pa.record_batch(dict(zip(PASSAGE_SCHEMA.names, columns, strict=True)), schema=PASSAGE_SCHEMA)
            )


def word(number: int) -> str:
    """Return a made-up word of four or more letters."""
    syllables: list[str] = []
    while number or len(syllables) < 2:
        number, rest = divmod(number, 100)
        syllables.append("bdfgklmnprstvzhjcwxq"[rest // 5] + "aeiou"[rest % 5])
    return "".join(syllables)


def build_step(folder: Path) -> dict[str, Any]:
    """Index the corpus."""
    began = time.perf_counter()
    Bm25(SETTINGS).build(Corpus(map_table(folder / "passages.arrow")), folder / "index", print)
    taken = time.perf_counter() - began
    return {"seconds to index": round(taken, 1), "peak memory of indexing (GB)": peak_memory()}


def search_step(folder: Path) -> dict[str, Any]:
    """Ask for six words of a passage each time."""
    corpus, retriever = Corpus(map_table(folder / "passages.arrow")), Bm25(SETTINGS)
    began = time.perf_counter()
    retriever.open(corpus, folder / "index")
    opening = time.perf_counter() - began
    queries = list(questions_of(corpus))
    retriever.search(queries[:50], DEPTH)
    began = time.perf_counter()
    retriever.search(queries, DEPTH)
    rate = len(queries) / (time.perf_counter() - began)
    return {
        "seconds to open": round(opening, 3),
        "questions per second": round(rate, 1),
        "peak memory of searching, mapped pages included (GB)": peak_memory(),
    }


def questions_of(corpus: Corpus) -> Iterator[Query]:
    """Yield a thousand queries of six neighbouring words."""
    rng = np.random.default_rng(2)
    for position in rng.integers(0, len(corpus), 1000).tolist():
        words = corpus.text(position).split()
        start = int(rng.integers(0, len(words) - 6))
        yield Query(str(position), " ".join(words[start : start + 6]))


def peak_memory() -> float:
    """Return the most memory this process held, in GB; unlike getrusage, without what its parent held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e9, 2)


_STEPS = {"build": build_step, "search": search_step}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_STEPS[sys.argv[1]](Path(sys.argv[2]))))
    else:
        main()
