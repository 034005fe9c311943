"""A sweep over 1 to 10 passages with shared prefixes against separate generation, in one run on the same prompts.

Separate generation is transformers' own batched `generate`. Both decode greedily; in float32 their tokens are the same.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.results_file import write_result
from data_builders.build import build_data
from data_builders.paths import data_paths
from data_builders.tables import read_pools
from rag_ft.evaluation.grid import points
from rag_ft.evaluation.settings import EvaluationSettings, SystemSettings
from rag_ft.generation import Request
from rag_ft.generation.choose import choose_engine
from rag_ft.models.load import load_base
from rag_ft.models.settings import ModelSettings
from rag_ft.prompting.encode import Encoder
from rag_ft.recipe.load import load_recipe

QUESTIONS = 8
SWEEP = EvaluationSettings(passages=tuple(range(1, 11)), gold=("retrieved",), references=())


def main() -> None:
    """Answer the same sweep both ways, in both types, and write the ratios."""
    numbers: dict[str, float | int | str] = {"questions": QUESTIONS, "passage counts": "1..10"}
    for dtype in ("bfloat16", "float32"):
        settings = ModelSettings(dtype=dtype, attention="auto" if dtype == "bfloat16" else "sdpa")
        model, tokenizer = load_base(settings)
        encoder = Encoder(tokenizer, settings.prompt, {})
        groups = sweeps(encoder)
        answers, seconds = {}, {}
        for share in (True, False):
            engine = choose_engine(model.eval(), encoder, groups, max_new_tokens=12, batch_size=8, share=share)
            began = time.perf_counter()
            answers[share] = {answer.key: answer.ids for batch in engine.generate(groups) for answer in batch}
            seconds[share] = time.perf_counter() - began
        same = sum(answers[True][key] == ids for key, ids in answers[False].items())
        numbers |= {
            f"{dtype}: shared (s)": round(seconds[True], 1),
            f"{dtype}: separate (s)": round(seconds[False], 1),
            f"{dtype}: speed-up": round(seconds[False] / seconds[True], 2),
            f"{dtype}: identical answers": f"{same} of {len(answers[True])}",
        }
    write_result("prefix_sharing", numbers, "python -m benchmarks.prefix_sharing")


def sweeps(encoder: Encoder) -> list[list[Request]]:
    """Return the sweep of each question over the quickstart's test passages."""
    recipe = load_recipe("quickstart")
    with tempfile.TemporaryDirectory() as folder:
        build_data(recipe.data, recipe.seed, Path(folder), report=lambda line: None)
        pools = list(read_pools(data_paths(Path(folder)).pools["test"]))[:QUESTIONS]
    system = SystemSettings(name="base", weights="base")
    return [
        [
            Request(f"{pool.id}-{point.passages}", encoder.prompt(pool.question, point.texts()))
            for point in points(pool, [system], SWEEP)
        ]
        for pool in pools
    ]


if __name__ == "__main__":
    main()
