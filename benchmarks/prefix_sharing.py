"""A sweep over passage counts with shared prefixes: against its largest point alone, and against separate generation.

Everything runs on the same prompts in one process and one thread, and the sides take turns. Times are the processor's,
which other programs on the machine change little. The peer is transformers' own `generate` on rows padded on the left,
sorted by length, with the same attention as ours and, at the single point, also with sdpa, which transformers chooses
itself. Greedy throughout.

    python -m benchmarks.prefix_sharing                              # questions of the invented world
    python -m benchmarks.prefix_sharing --questions nq.jsonl.gz      # real questions with passages
    python -m benchmarks.prefix_sharing --smoke                      # under a minute, prints only
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.results_file import write_result
from data_builders.build import build_data
from data_builders.paths import data_paths
from data_builders.records import Passage
from data_builders.tables import read_pools
from rag_ft.generation import Request
from rag_ft.generation.choose import stop_ids
from rag_ft.generation.separate import SeparateEngine
from rag_ft.generation.tree import TreeEngine
from rag_ft.memory import give_back, resident_bytes
from rag_ft.models.load import dtype_name, load_base
from rag_ft.models.settings import ModelSettings
from rag_ft.prompting.encode import Encoder, Ids
from rag_ft.recipe.load import load_recipe

Groups = list[list[Request]]
Answers = dict[str, Ids]
LONG = 384
"""Tokens of a long output, as a reasoning style may write."""
MOST = 20
"""Passages of the largest point."""
APART = 1
"""Questions that are also asked point by point."""


def main() -> None:
    """Measure, and write the seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", help="JSON Lines with questions and ranked passages; else the invented world")
    parser.add_argument("--count", type=int, default=4, help="questions; one batch")
    parser.add_argument("--new", type=int, default=48, help="longest output in tokens")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the quick sides; separate generation: one")
    parser.add_argument("--smoke", action="store_true", help="2 questions, 1 round, no results file")
    told = parser.parse_args()
    torch.set_num_threads(1)
    count, rounds = (2, 1) if told.smoke else (told.count, told.rounds)
    settings = ModelSettings(attention="auto")
    model, tokenizer = load_base(settings)
    groups = sweeps(Encoder(tokenizer, settings.prompt, {}), told.questions, count)
    stops = stop_ids(model.eval(), Encoder(tokenizer, settings.prompt, {}))
    numbers: dict[str, Any] = {
        "questions": f"{count} of {Path(told.questions).name if told.questions else 'the invented world'}",
        "passage counts": f"1..{len(groups[0])}",
        "prompt tokens at the largest": round(statistics.mean(group[-1].length for group in groups)),
        "dtype": dtype_name(settings.dtype),
        **compared(model, stops, groups, told.new, rounds),
        **long_outputs(model, groups, 64 if told.smoke else LONG),
    }
    if told.smoke:
        print(numbers)
    else:
        name = f" --questions {Path(told.questions).name}" if told.questions else ""
        write_result("prefix_sharing", numbers, f"python -m benchmarks.prefix_sharing{name}")


def compared(model: Any, stops: frozenset[int], groups: Groups, new: int, rounds: int) -> dict[str, Any]:
    """Return seconds and ratios of the sweep, its largest point and separate generation."""
    point = [[group[-1]] for group in groups]
    shared = TreeEngine(model, stops, new, len(groups))
    blocks = model.config._attn_implementation
    sides: dict[str, Callable[[], Answers]] = {
        "sweep": lambda: answered(shared, groups),
        "largest point": lambda: answered(shared, point),
        "largest point, separate engine": lambda: answered(SeparateEngine(model, stops, new, len(groups)), point),
        "largest point, generate": lambda: plainly(model, stops, point, new, len(groups), blocks),
        "largest point, generate with sdpa": lambda: plainly(model, stops, point, new, len(groups), "sdpa"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, Answers] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            took, answers[name] = timed(side)
            seconds[name].append(took)
            print(f"{name}: {took:.1f} s", flush=True)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    separate, apart = timed(lambda: plainly(model, stops, groups[:APART], new, len(groups), blocks))
    separate *= len(groups) / APART
    peer = min(middle["largest point, generate"], middle["largest point, generate with sdpa"])
    return {
        **{f"{name} (s)": round(value, 2) for name, value in middle.items()},
        f"every point, generate (s, from {APART} of the questions)": round(separate, 2),
        "sweep over its largest point": round(middle["sweep"] / middle["largest point"], 2),
        "sweep over the largest point by generate": round(middle["sweep"] / peer, 2),
        "sweep: times as fast as generate": round(separate / middle["sweep"], 2),
        "throughput at the largest point over generate": round(peer / middle["largest point"], 2),
        "separate engine's throughput over generate": round(peer / middle["largest point, separate engine"], 2),
        "identical answers": f"{sum(answers['sweep'][key] == ids for key, ids in apart.items())} of {len(apart)}",
        "tokens written": sum(map(len, answers["sweep"].values())),
    }


def timed(side: Callable[[], Answers]) -> tuple[float, Answers]:
    """Return the seconds a side takes and what it answers."""
    give_back()
    began = time.process_time()
    found = side()
    return time.process_time() - began, found


def answered(engine: Any, groups: Groups) -> Answers:
    """Return an engine's answers."""
    return {answer.key: answer.ids for batch in engine.generate(groups) for answer in batch}


def plainly(model: Any, stops: frozenset[int], groups: Groups, new: int, batch: int, attention: str) -> Answers:
    """Answer as a script would: `generate` on batches of rows padded on the left, like lengths together."""
    rows = sorted((request for group in groups for request in group), key=lambda request: request.length)
    before = model.config._attn_implementation
    model.set_attn_implementation(attention)
    found: Answers = {}
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        longest = part[-1].length
        ids = torch.tensor([[0] * (longest - row.length) + [t for s in row.segments for t in s] for row in part])
        mask = torch.tensor([[0] * (longest - row.length) + [1] * row.length for row in part])
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=sorted(stops),
            pad_token_id=min(stops),
        )[:, longest:].tolist()
        for row, tokens in zip(part, written, strict=True):
            end = next((index for index, token in enumerate(tokens) if token in stops), len(tokens))
            found[row.key] = tuple(tokens[:end])
    model.set_attn_implementation(before)
    return found


def long_outputs(model: Any, groups: Groups, new: int) -> dict[str, Any]:
    """Return what memory two batches of long outputs take: the second must not add to the first."""
    few = [[group[0], group[2]] for group in groups[:2]]
    engine = TreeEngine(model, frozenset({-1}), new, len(few))
    held = []
    began = time.process_time()
    for _ in range(2):
        give_back()
        before = resident_bytes()
        assert all(len(ids) == new for ids in answered(engine, few).values())
        give_back()
        held.append((resident_bytes() - before) / 1e6)
    return {
        f"{new} tokens for each of 4 prompts, twice (s)": round(time.process_time() - began, 1),
        f"{new} tokens: memory kept after the first and the second time (MB)": [round(value) for value in held],
    }


def sweeps(encoder: Encoder, questions: str | None, count: int) -> Groups:
    """Return the sweep of each question over all its passages."""
    asked = real_questions(Path(questions), count) if questions else invented_questions(count)
    return [
        [
            Request(f"{question}-{shown}", encoder.prompt(question, passages[:shown]))
            for shown in range(1, len(passages) + 1)
        ]
        for question, passages in asked
    ]


def real_questions(path: Path, count: int) -> list[tuple[str, list[Passage]]]:
    """Return questions with 20 passages: their own, filled up with those of the next question."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line, _ in zip(stream, range(count + 1), strict=False)]
    asked = []
    for row, other in pairwise(rows):
        found = (row["passages"] + other["passages"])[:MOST]
        asked.append((row["question"], [Passage(each["id"], each["title"], each["text"]) for each in found]))
    return asked


def invented_questions(count: int) -> list[tuple[str, list[Passage]]]:
    """Return questions of the quickstart with their 20 best passages."""
    recipe = load_recipe("quickstart")
    with tempfile.TemporaryDirectory() as folder:
        build_data(recipe.data, recipe.seed, Path(folder), report=lambda line: None)
        pools = list(read_pools(data_paths(Path(folder)).pools["test"]))[:count]
    return [(pool.question, [Passage(one.id, one.title, one.text) for one in pool.passages[:MOST]]) for pool in pools]


if __name__ == "__main__":
    main()
