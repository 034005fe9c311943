"""How often a 95 % interval holds the truth: simulated pairs, percentile and BCa, single and related questions.

Both systems find the same questions easy: the score of a question is 1 where a normal number, partly common to the
systems, lies below the system's threshold. So the true accuracies, and their difference, are known.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import write_result
from rag_ft.evaluation.statistics import Bootstrap, resample

TRIALS, RESAMPLES = 1000, 2000
QUESTIONS = (100, 200, 400)
ACCURACIES = ((0.5, 0.5), (0.6, 0.45), (0.7, 0.65), (0.9, 0.8), (0.2, 0.1))
CORRELATIONS = (0.3, 0.6, 0.9)
RELATED = 5  # questions of one document
Scores = NDArray[np.float64]


def main() -> None:
    """Simulate every setting and write the shares of intervals that hold the true difference."""
    began = time.perf_counter()
    numbers: dict[str, Any] = {"pairs of systems per setting": TRIALS, "resamples": RESAMPLES}
    for kind in ("percentile", "bca"):
        rows = {(n, *pair, rho): covered(kind, n, pair, rho) for n, pair, rho in settings()}
        numbers[f"{kind}: mean coverage"] = round(statistics.mean(rows.values()), 4)
        numbers[f"{kind}: mean coverage by questions"] = {
            str(n): round(statistics.mean(share for key, share in rows.items() if key[0] == n), 4) for n in QUESTIONS
        }
        for name, pick in (("lowest", min), ("highest", max)):
            setting = pick(rows, key=rows.__getitem__)
            numbers[f"{kind}: {name} coverage (questions, accuracies, correlation)"] = [rows[setting], *setting]
        share = sum(0.93 <= share <= 0.97 for share in rows.values()) / len(rows)
        numbers[f"{kind}: settings between 93 and 97 %"] = round(share, 4)
    numbers[f"{RELATED} questions a document, drawn one by one"] = of_documents(together=False)
    numbers[f"{RELATED} questions a document, drawn by document"] = of_documents(together=True)
    numbers["seconds"] = round(time.perf_counter() - began, 1)
    write_result("interval_coverage", numbers, "python -m benchmarks.interval_coverage")


def settings() -> Iterator[tuple[int, tuple[float, float], float]]:
    yield from product(QUESTIONS, ACCURACIES, CORRELATIONS)


def covered(kind: str, questions: int, accuracies: tuple[float, float], correlation: float) -> float:
    """Return the share of simulated pairs whose interval holds the true difference."""
    rng = np.random.default_rng([questions, *(round(100 * value) for value in (*accuracies, correlation))])
    common = rng.standard_normal((questions, TRIALS, 1)) * correlation**0.5
    own = rng.standard_normal((questions, TRIALS, 2)) * (1 - correlation) ** 0.5
    return share_of_hits(right(common + own, accuracies), kind, accuracies, clusters=None)


def of_documents(*, together: bool) -> float:
    """Return the coverage where questions of a document suit one of the systems more than the other."""
    rng = np.random.default_rng(1)
    accuracies, documents = (0.6, 0.5), 60
    of_document = np.repeat(rng.standard_normal((documents, TRIALS, 2)), RELATED, axis=0) * 0.5**0.5
    own = rng.standard_normal((documents * RELATED, TRIALS, 2)) * 0.5**0.5
    names = [f"{number // RELATED}" for number in range(documents * RELATED)]
    scores = right(of_document + own, accuracies)
    return share_of_hits(scores, "percentile", accuracies, clusters=names if together else None)


def right(ease: Scores, accuracies: tuple[float, float]) -> Scores:
    """Return 0/1 scores (questions x trials x systems) of normal numbers, with the accuracies given."""
    return (ease < [statistics.NormalDist().inv_cdf(accuracy) for accuracy in accuracies]).astype(np.float64)


def share_of_hits(scores: Scores, kind: Any, accuracies: tuple[float, float], clusters: list[str] | None) -> float:
    # All trials are columns of one matrix: they share the draws of questions, and each has scores of its own.
    bootstrap = Bootstrap(resamples=RESAMPLES, seed=1, interval=kind)
    resampled = resample(scores.reshape(len(scores), -1), bootstrap, clusters)
    intervals = [resampled.difference(2 * trial, 2 * trial + 1) for trial in range(TRIALS)]
    truth = accuracies[0] - accuracies[1]
    return sum(one.low - 1e-9 <= truth <= one.high + 1e-9 for one in intervals) / TRIALS


if __name__ == "__main__":
    main()
