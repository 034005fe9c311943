"""Keeps what was tried on the way to the recipe of benchmarks/real_questions.py, so that nobody has to try it again.

python -m benchmarks.real_questions_trials NAME RUN SCORES SYSTEM    # RUN: folder of the training, SCORES: scores.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results_file import RESULTS, write_result

FILE = "real_questions_trials"


def main() -> None:
    """Add a trial to the results, or put it anew."""
    name, run, scores, system = sys.argv[1:]
    path = RESULTS / f"{FILE}.json"
    kept = json.loads(path.read_text(encoding="utf-8"))["numbers"] if path.exists() else {}
    kept[name] = trial(Path(run), json.loads(Path(scores).read_text(encoding="utf-8")), system)
    write_result(FILE, kept, "python -m benchmarks.real_questions_trials NAME RUN SCORES SYSTEM")


def trial(run: Path, scores: dict[str, Any], system: str) -> dict[str, Any]:
    """Return what was trained on and what came of it; RUN may be the base's, which was trained on nothing."""
    recipe = yaml.safe_load((run / "recipe.resolved.yaml").read_text(encoding="utf-8"))
    summary = run / "training/summary.json"
    trained = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    cells = [cell for cell in scores["cells"] if cell["system"] == system and cell["group"] == "all"]
    kept = {cell["passages"]: cell for cell in cells if cell["gold"] == "kept"}
    absent = next((cell for cell in cells if cell["gold"] == "absent"), None)
    return {
        "contexts": recipe["data"]["contexts"],
        "negatives": recipe["data"]["negatives"]["shares"],
        "questions in the contexts": trained.get("questions"),
        "steps": trained.get("steps"),
        "rows": trained.get("rows"),
        "asked": scores["questions"]["all"],
        "accuracy": {str(count): cell["accuracy"] for count, cell in kept.items()},
        "over-refusal": {str(count): cell["abstention"]["over_refusal"] for count, cell in kept.items()},
        "hallucination at 10, gold absent": absent and absent["abstention"]["hallucination_rate"],
    }


if __name__ == "__main__":
    main()
