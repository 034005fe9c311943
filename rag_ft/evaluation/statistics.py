"""Bootstrap intervals over questions: means, paired differences, drops from the best. Knows nothing of predictions.

All columns of a matrix (questions x columns) are resampled together, so every comparison between columns is paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_builders.errors import RagFtError

Floats = NDArray[np.float64]
_CHUNK = 2_000_000  # drawn indices held at once: 16 MB


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: their level, how many resamples, and the seed of the draws (PCG64)."""

    confidence: float = 0.95
    resamples: int = 5000
    seed: int = 0


@dataclass(frozen=True)
class Interval:
    """An estimate, the ends of its interval, and the number of questions behind it."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Drop:
    """How far the last column lies below the best one, and which column is the best."""

    interval: Interval
    best: int


@dataclass(frozen=True)
class ResampledMeans:
    """Column means of a matrix of per-question scores, as observed and in each resample of the questions."""

    n: int
    means: Floats
    draws: Floats
    confidence: float

    def mean(self, column: int) -> Interval:
        """Return the percentile interval of a column's mean."""
        return self._interval(self.means[column], self.draws[:, column])

    def difference(self, column: int, baseline: int) -> Interval:
        """Return the percentile interval of the mean of `column` minus that of `baseline`, question by question."""
        return self._interval(
            self.means[column] - self.means[baseline], self.draws[:, column] - self.draws[:, baseline]
        )

    def drop_from_best(self, columns: list[int]) -> Drop:
        """Return how far the last of `columns` lies below the best of them.

        The estimate is biased upwards, since the best of several noisy means is chosen on the same questions: by 0.02
        for four equal systems at 400 questions, by less where one stands out. A percentile interval that
        chooses the best anew in each resample doubles that bias and finds a drop in flat curves too often; one that
        keeps the observed best is too sure at its upper end, and empty where the last column is the best.
        So the lower end keeps the observed best and the upper end chooses anew. The lower end is never below 0,
        and above 0 it speaks for a real drop.
        """
        means, draws = self.means[columns], self.draws[:, columns]
        best = int(means.argmax())
        kept = self._interval(means[best] - means[-1], draws[:, best] - draws[:, -1])
        chosen_anew = self._interval(kept.mean, draws.max(axis=1) - draws[:, -1])
        return Drop(Interval(kept.mean, max(kept.low, 0.0), chosen_anew.high, self.n), best)

    def drop_difference(self, columns: list[int], baseline: list[int]) -> Interval:
        """Return the drop of `columns` minus the drop of `baseline`, each with its best chosen anew in each resample.

        A flat curve carries more upward bias than a falling one, so an improvement is understated, not overstated.
        """
        estimate = _drop(self.means[None, columns]) - _drop(self.means[None, baseline])
        return self._interval(float(estimate[0]), _drop(self.draws[:, columns]) - _drop(self.draws[:, baseline]))

    def _interval(self, estimate: float, draws: Floats) -> Interval:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return Interval(float(estimate), float(low), float(high), self.n)


def _drop(means: Floats) -> Floats:
    return means.max(axis=1) - means[:, -1]


def resample(matrix: ArrayLike, bootstrap: Bootstrap) -> ResampledMeans:
    """Resample the rows of `matrix` (questions x columns) with replacement and take the mean of every column.

    The draws depend on the seed and the number of questions only, never on the scores.

    Raises:
        RagFtError: there is no question to resample.
    """
    scores = np.asarray(matrix, dtype=np.float64)
    n = len(scores)
    if not n:
        raise RagFtError("there is no question to score; let `rag-ft evaluate RECIPE` finish a batch first.")
    rng = np.random.Generator(np.random.PCG64(bootstrap.seed))
    chunk = max(1, _CHUNK // n)
    sizes = [min(chunk, bootstrap.resamples - start) for start in range(0, bootstrap.resamples, chunk)]
    draws = np.concatenate([_weights(rng, size, n) @ scores / n for size in sizes])
    return ResampledMeans(n, scores.mean(axis=0), draws, bootstrap.confidence)


def _weights(rng: np.random.Generator, resamples: int, n: int) -> Floats:
    """Return how often each question is drawn in each resample (resamples x questions)."""
    drawn = rng.integers(0, n, size=(resamples, n)) + np.arange(resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def bootstrap_mean(values: ArrayLike, bootstrap: Bootstrap) -> Interval:
    """Return the percentile interval of the mean of `values` (one per question)."""
    return resample(np.asarray(values, dtype=np.float64)[:, None], bootstrap).mean(0)


def paired_difference(values: ArrayLike, baseline: ArrayLike, bootstrap: Bootstrap) -> Interval:
    """Return the interval of mean(values) - mean(baseline), both over the same questions in the same order."""
    return resample(np.column_stack([values, baseline]), bootstrap).difference(0, 1)


def drop_from_best(matrix: ArrayLike, bootstrap: Bootstrap) -> Drop:
    """Return how far one system falls from its best count to its largest, given scores (questions x counts)."""
    scores = np.asarray(matrix, dtype=np.float64)
    return resample(scores, bootstrap).drop_from_best(list(range(scores.shape[1])))
