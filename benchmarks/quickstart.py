"""Turns a finished quickstart run into its result file, the README's figure and the README's numbers.

make quickstart && python -m benchmarks.quickstart runs/quickstart
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results_file import write_result
from rag_ft.report.figures import alt_text, save_figure
from rag_ft.report.findings import find

ROOT = Path(__file__).parent.parent
FIGURE = "docs/quickstart.svg"
GROUP = "one_hop"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main(run: Path) -> None:
    """Write results, figure and README block of a run folder."""
    scores = _json(run / "evaluation/scores.json")
    if scores["partial"]:
        sys.exit(f"{run} was evaluated with --limit: run `make quickstart` first")
    numbers = {
        "cost": _json(run / "cost.json"),
        "training": _json(run / "training/summary.json"),
        "prompt_hash": scores["prompt_hash"],
        "questions": scores["questions"],
        "accuracy": accuracies(scores),
        "tuned minus base": differences(scores),
        "retention": {f"{row['system']}, {row['gold']}, {row['group']}": row["ratio"] for row in scores["retention"]},
        "recall": scores["recall"],
    }
    write_result("quickstart", numbers, "make quickstart && python -m benchmarks.quickstart runs/quickstart")
    save_figure(scores, ROOT / FIGURE, group=GROUP)
    update_readme(readme_block(scores, numbers))


def accuracies(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return accuracy with interval by system, gold mode, count and group."""
    return {
        f"{cell['system']}, {cell['gold']}, {cell['passages']} passages, {cell['group']}": cell["accuracy"]
        for cell in scores["cells"]
    }


def differences(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return tuned minus base with interval."""
    return {
        f"{row['gold']}, {row['passages']} passages, {row['group']}": row["accuracy"]
        for row in scores["differences"]
        if row["system"] == "tuned"
    }


def readme_block(scores: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """Return the figure and the table that stand on the README's first screen."""
    counts = sorted({cell["passages"] for cell in scores["cells"] if cell["gold"] == "kept"})
    rows = []
    for system in dict.fromkeys(cell["system"] for cell in scores["cells"] if cell["gold"] == "kept"):
        cells = [find(scores["cells"], system=system, gold="kept", passages=count, group=GROUP) for count in counts]
        rows.append(
            f"| {system} | " + " | ".join(f"{100 * cell['accuracy']['mean']:.0f} %" for cell in cells if cell) + " |"
        )
    gain = numbers["tuned minus base"][f"kept, {counts[-1]} passages, {GROUP}"]
    cost = numbers["cost"]
    return "\n".join(
        [
            f"![{alt_text(scores, 'kept', GROUP)}]({FIGURE})",
            "",
            "| passages shown | " + " | ".join(map(str, counts)) + " |",
            "|---|" + "---|" * len(counts),
            *rows,
            "",
            f"Tuned minus base at {counts[-1]} passages: {100 * gain['mean']:+.0f} points (95 % interval "
            f"{100 * gain['low']:.0f} to {100 * gain['high']:.0f}), {scores['questions'][GROUP]} one-hop questions "
            "about an invented world, evidence always shown, none of its people or places seen in training. "
            f"{cost['minutes']:.0f} minutes and {cost['peak_memory_gb']:.1f} GB on two CPU cores. "
            "The settings were chosen on this world: [how far the numbers reach]"
            "(docs/quickstart.md#how-far-the-numbers-reach).",
        ]
    )


def update_readme(block: str) -> None:
    """Put the block between the README's markers."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{block}\n{END}{after}", encoding="utf-8")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart"))
