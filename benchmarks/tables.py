"""Writes figures from benchmarks/results into the pages that show them (`python -m benchmarks.tables`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
_SYSTEMS = ("ours", "bm25s, numba", "bm25s, numpy", "rank-bm25")


def main() -> None:
    """Write every table anew."""
    for page, name in TABLES:
        path = ROOT / page
        path.write_text(with_table(path.read_text(encoding="utf-8"), name), encoding="utf-8")


def with_table(page: str, name: str) -> str:
    """Return a page with the current table between its markers."""
    before, rest = page.split(f"<!-- {name}:begin -->")
    after = rest.split(f"<!-- {name}:end -->")[1]
    numbers = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["numbers"]
    table = "\n".join(TABLES[_page_of(name), name](numbers))
    return f"{before}<!-- {name}:begin -->\n{table}\n<!-- {name}:end -->{after}"


def _page_of(name: str) -> str:
    return next(page for page, table in TABLES if table == name)


def _bm25(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"| passages | {' | '.join(_SYSTEMS)} |", "|---|---|---|---|---|")
    for name, one in numbers.items():
        speed = one["questions per second"]
        cells = [speed[system] for system in _SYSTEMS] if isinstance(speed, dict) else [speed]
        texts = [*(f"{value:,.0f}" for value in cells), "", "", ""][: len(_SYSTEMS)]
        yield f"| {int(name.split()[0]):,} | {' | '.join(texts)} |"
    million = numbers["1000000 passages of 100 words"]
    yield ""
    yield (
        f"A million passages of 100 words: indexed in {million['seconds to index']:.0f} s with "
        f"{million['peak memory of indexing (GB)']} GB at the peak, "
        f"{million['bytes of index per passage']} bytes of index a passage."
    )


def _prefix_sharing(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield "| of one CPU thread | ratio |"
    yield "|---|---|"
    rows = {
        f"a sweep over {numbers['passage counts']} passages, of its largest point": "sweep over its largest point",
        "the same, of that point by batched `generate`": "sweep over the largest point by generate",
        "times as fast as `generate` at every count": "sweep: times as fast as generate",
        "answers a second at the largest point, of batched `generate`": "throughput at the largest point over generate",
    }
    yield from (f"| {what} | {numbers[key]} |" for what, key in rows.items())
    yield ""
    yield (
        f"SmolLM2 on {numbers['questions']}, up to {numbers['prompt tokens at the largest']:,} tokens; `generate` at "
        f"every count was measured on one question. {numbers['identical answers']} answers are the same."
    )


def _building(numbers: Mapping[str, Any]) -> Iterator[str]:
    sizes = [one for one in numbers.values() if isinstance(one, dict)]
    steps = list(sizes[0]["steps"])
    yield f"| passages | questions | {' | '.join(f'`{step}`' for step in steps)} | all | peak memory |"
    yield "|---|---|" + "---|" * (len(steps) + 2)
    for one in sizes:
        seconds = [one["steps"][step]["seconds"] for step in steps]
        memory = one["peak memory (GB, of all processes, without mapped files)"]
        cells = [f"{one['passages']:,}", f"{one['questions']:,}", *(f"{value:.1f} s" for value in seconds)]
        yield f"| {' | '.join(cells)} | {one['seconds']:.0f} s | {memory:.2f} GB |"


def _dense_mining(numbers: Mapping[str, Any]) -> Iterator[str]:
    theirs = "mine_hard_negatives, "
    best = min(value for name, value in numbers.items() if name.startswith(theirs) and name.endswith("(s)"))
    what = f"{numbers['questions']:,} questions over {numbers['passages']:,} SQuAD passages, one thread"
    yield f"| {what} | seconds | with a verbatim answer |"
    yield "|---|---|---|"
    for name, seconds in (("ours", numbers["ours (s)"]), ("theirs", best), ("theirs, relative_margin=0.05", None)):
        share = numbers[f"{name}: bearing an answer, verbatim (%)"]
        shown = name.replace("theirs", "`mine_hard_negatives`")
        yield f"| {shown} | {'' if seconds is None else f'{seconds:.0f}'} | {share} % |"


def _training_speed(numbers: Mapping[str, Any]) -> Iterator[str]:
    sides = list(numbers["batch 1 x accumulation 4"]["rows per second"])
    yield f"| rows a second, {numbers['rows of']} | {' | '.join(sides)} |"
    yield "|---|" + "---|" * len(sides)
    for name in ("batch 1 x accumulation 4", "batch 4, random or grouped"):
        speed = numbers[name]["rows per second"]
        yield f"| {name} | {' | '.join(f'{speed[side]:.2f}' if side in speed else '' for side in sides)} |"
    yield ""
    ratios = [numbers[name]["ratio"] for name in ("batch 1 x accumulation 4", "batch 4, random or grouped")]
    one, four = (ratio["rag-ft / plain TRL"] for ratio in ratios)
    alike = 1 / ratios[0]["rag-ft / plain TRL, our attention"]
    yield (
        f"On two cores `rag-ft train` takes {one:.2f} times the rows a second of a plain TRL script on the same rows, "
        f"{four:.2f} times with batches of four, which it groups by length. With our attention the script would be "
        f"{100 * (alike - 1):.0f} % faster."
    )


def _shared_contexts(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Ten questions over ten passages: {numbers['speed-up']:.1f} times the questions a second of rows of their "
        f"own. The gradients differ by {numbers['relative difference of gradients in float32']:.0e} of their length in "
        f"float32 and {numbers['relative difference of gradients in float64']:.0e} in float64."
    )


def _shared_learning(numbers: Mapping[str, Any]) -> Iterator[str]:
    shared, separate = (numbers[f"{way}: mean loss"] for way in ("shared", "separate"))
    yield (
        f"After {numbers['steps'] * numbers['questions a step']} questions, over three seeds, the validation loss of "
        f"SmolLM2 is {shared:.3f} with shared contexts and {separate:.3f} with rows of their own "
        f"({numbers['untrained: loss']:.3f} before; the seeds spread by {numbers['separate: standard deviation']:.3f})."
    )


def _killed_trainings(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Of {numbers['kills']} trainings of SmolLM2 in two stages, each killed with SIGKILL at a random step and "
        f"started again, {numbers['losses and adapter equal bit by bit']} ended with every loss and the adapter of the "
        "one left alone, bit by bit."
    )


def _small_trainings(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| recipe, cut down to SmolLM2 and a few steps | validation loss |", "|---|---|")
    for recipe, curves in numbers.items():
        told = [
            f"{name}: " * (len(curves) > 1) + " → ".join(f"{loss:.3f}" for loss in curve.values())
            for name, curve in curves.items()
        ]
        yield f"| `{recipe.split(' (')[0]}`{', Unsloth' * ('unsloth' in recipe)} | {'; '.join(told)} |"


def _interval_coverage(numbers: Mapping[str, Any]) -> Iterator[str]:
    sizes = list(numbers["percentile: mean coverage by questions"])
    yield f"| questions | {' | '.join(sizes)} | least of all settings | most |"
    yield "|---|" + "---|" * (len(sizes) + 2)
    for kind in ("percentile", "bca"):
        means = numbers[f"{kind}: mean coverage by questions"]
        ends = [
            numbers[f"{kind}: {end} coverage (questions, accuracies, correlation)"][0] for end in ("lowest", "highest")
        ]
        yield f"| `{kind}` | {' | '.join(f'{100 * value:.1f} %' for value in (*means.values(), *ends))} |"


def _gguf_answers(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield "| quantisation | size | same token ids | same first token | its logits differ by at most | same answers |"
    yield "|---|---|---|---|---|---|"
    count = len(numbers["right answers"])
    for kind, one in numbers.items():
        if not isinstance(one, dict) or "megabytes" not in one:
            continue
        share = 100 * one["as a share of their range"]
        yield (
            f"| `{kind}` | {one['megabytes']:.0f} MB | {one['prompts with the same ids']} of {count} | "
            f"{one['same first token']} of {count} | {share:.1f} % of their range | {one['same answers']} of {count} |"
        )


def _asking(numbers: Mapping[str, Any]) -> Iterator[str]:
    files, load = numbers["PDF files"], numbers["others at work (load average)"]
    median, late, work = (
        numbers[name]
        for name in (
            "finding 10 passages, median (ms)",
            "finding 10 passages, 95th percentile (ms)",
            "processor time of finding them (ms)",
        )
    )
    yield "| what | time |"
    yield "|---|---|"
    yield f"| find 10 of {numbers['passages']:,} passages: the processor's part | {work:.0f} ms |"
    yield f"| the same by the clock | median {median:.0f} ms, 95th percentile {late:.0f} ms |"
    yield f"| look whether {files} PDF files are unchanged | {numbers['update with nothing new (s)']:.2f} s |"
    yield f"| add one PDF file to them: one is read | {numbers['update with one PDF more (s)']:.1f} s |"
    yield f"| read and embed all of them, a page each | {numbers['reading and embedding 200 PDF files (s)']:.0f} s |"
    yield ""
    yield (
        f"With one thread on a machine of two cores that was busy with other work (load average {load:.0f}). "
        "Try yours: `python -m benchmarks.asking`."
    )


TABLES: dict[tuple[str, str], Callable[[Mapping[str, Any]], Iterator[str]]] = {
    ("docs/architecture.md", "bm25"): _bm25,
    ("docs/ask.md", "asking"): _asking,
    ("docs/data.md", "building"): _building,
    ("docs/data.md", "dense_mining"): _dense_mining,
    ("docs/evaluation.md", "interval_coverage"): _interval_coverage,
    ("docs/evaluation.md", "prefix_sharing"): _prefix_sharing,
    ("docs/ship.md", "gguf_answers"): _gguf_answers,
    ("docs/training.md", "training_speed"): _training_speed,
    ("docs/training.md", "shared_contexts"): _shared_contexts,
    ("docs/training.md", "shared_learning"): _shared_learning,
    ("docs/training.md", "killed_trainings"): _killed_trainings,
    ("docs/training.md", "small_trainings"): _small_trainings,
}
"""Page and name of the results file, which the markers are called after -> the lines between them."""


if __name__ == "__main__":
    main()
