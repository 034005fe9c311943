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


TABLES: dict[tuple[str, str], Callable[[Mapping[str, Any]], Iterator[str]]] = {
    ("docs/architecture.md", "bm25"): _bm25,
    ("docs/data.md", "building"): _building,
    ("docs/data.md", "dense_mining"): _dense_mining,
}
"""Page and name of the results file, which the markers are called after -> the lines between them."""


if __name__ == "__main__":
    main()
