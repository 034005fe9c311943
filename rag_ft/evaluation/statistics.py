"""Bootstrap intervals over questions and tests of paired answers. Knows nothing of predictions.

All columns of a matrix (questions x columns) are resampled together, so every comparison between columns is paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_builders.errors import RagFtError

Floats = NDArray[np.float64]
OfMeans = Callable[[Floats], Floats]
"""A number made of column means: takes (rows x columns), returns one number for each row."""
_CHUNK = 2_000_000  # drawn indices held at once: 16 MB
_EQUAL = 1e-12  # means that differ by less are the same number, added up in another order
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        confidence: their level.
        resamples: how many.
        seed: of the draws (PCG64).
        interval: `percentile`, or `bca` (bias-corrected and accelerated: Efron 1987, J. Am. Stat. Assoc. 82).
    """

    confidence: float = 0.95
    resamples: int = 5000
    seed: int = 0
    interval: Literal["percentile", "bca"] = "percentile"


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
    """Column means of a matrix of per-question scores, as observed and in each resample of the questions.

    Attributes:
        n: rows of the matrix.
        counts: how many questions each column applies to.
        means: mean of each column over those; NaN where there is none.
        draws: the same in each resample (resamples x columns).
        sums: scores added up in what is drawn, a question or a cluster of them (units x columns).
        sizes: questions the column applies to in it (units x columns).
        bootstrap: how the intervals are made.
    """

    n: int
    counts: NDArray[np.int64]
    means: Floats
    draws: Floats
    sums: Floats
    sizes: Floats
    bootstrap: Bootstrap

    def mean(self, column: int) -> Interval:
        """Return the interval of a column's mean."""
        return self.statistic([column], lambda means: means[:, 0])

    def difference(self, column: int, baseline: int) -> Interval:
        """Return the interval of the mean of `column` minus that of `baseline`, question by question."""
        return self.statistic([column, baseline], lambda means: means[:, 0] - means[:, 1])

    def statistic(self, columns: Sequence[int], of: OfMeans) -> Interval:
        """Return the interval of any number that is made of column means.

        Resamples in which it is undefined (NaN) are left out; where the estimate itself is, all ends are NaN.
        """
        chosen = list(columns)
        estimate = float(of(self.means[None, chosen])[0])
        draws = of(self.draws[:, chosen])
        low, high = self._ends(estimate, draws[~np.isnan(draws)], lambda: of(self._left_out(chosen)))
        return Interval(estimate, low, high, int(self.counts[chosen].min()))

    def drop_from_best(self, columns: list[int]) -> Drop:
        """Return how far the last of `columns` lies below the best of them.

        The estimate is biased upwards, since the best of several noisy means is chosen on the same questions: by 0.02
        for four equal systems at 400 questions, by less where one stands out. A percentile interval that
        chooses the best anew in each resample doubles that bias and finds a drop in flat curves too often; one that
        keeps the observed best is too sure at its upper end, and empty where the last column is the best.
        So the lower end keeps the observed best and the upper end chooses anew. The lower end is never below 0,
        and above 0 it speaks for a real drop.
        """
        best = int(self.means[columns].argmax())
        return Drop(self._fall(columns[best], columns[-1], columns, _drop), best)

    def spread(self, columns: list[int]) -> Interval:
        """Return the largest of the columns' means minus the smallest, with the ends of drop_from_best."""
        best, worst = int(self.means[columns].argmax()), int(self.means[columns].argmin())
        return self._fall(columns[best], columns[worst], columns, lambda means: means.max(1) - means.min(1))

    def drop_difference(self, columns: list[int], baseline: list[int]) -> Interval:
        """Return the drop of `columns` minus the drop of `baseline`, each with its best chosen anew in each resample.

        A flat curve carries more upward bias than a falling one, so an improvement is understated, not overstated.
        """
        width = len(columns)
        return self.statistic([*columns, *baseline], lambda means: _drop(means[:, :width]) - _drop(means[:, width:]))

    def _fall(self, high: int, low: int, columns: list[int], chosen_anew: OfMeans) -> Interval:
        kept = self.difference(high, low)
        return Interval(kept.mean, max(kept.low, 0.0), self.statistic(columns, chosen_anew).high, kept.n)

    def _ends(self, estimate: float, draws: Floats, left_out: Callable[[], Floats]) -> tuple[float, float]:
        if np.isnan(estimate) or not len(draws):
            return float("nan"), float("nan")
        tail = (1 - self.bootstrap.confidence) / 2
        levels = (tail, 1 - tail)
        if self.bootstrap.interval == "bca":
            levels = bca_levels(estimate, draws, left_out(), levels) or levels
        low, high = np.quantile(draws, levels)
        return float(low), float(high)

    def _left_out(self, columns: list[int]) -> Floats:
        """Return the columns' means without each unit in turn (units x columns): the jackknife."""
        sums, sizes = self.sums[:, columns], self.sizes[:, columns]
        return _ratio(sums.sum(axis=0) - sums, sizes.sum(axis=0) - sizes)


def bca_levels(
    estimate: float, draws: Floats, left_out: Floats, levels: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the levels at which BCa reads the draws; None where data without variation leave them undefined.

    The bias is the share of draws below the estimate, the acceleration a sixth of the skew of the jackknife (Efron
    1987; Efron and Tibshirani 1993, chapter 14). Draws equal to the estimate count half: means of 0 and 1 often are.
    """
    below = (np.sum(draws < estimate - _EQUAL) + np.sum(draws <= estimate + _EQUAL)) / (2 * len(draws))
    deviations = np.nanmean(left_out) - left_out[~np.isnan(left_out)] if len(left_out) > 1 else np.zeros(1)
    variation = float(np.sum(deviations**2))
    if not 0 < below < 1 or variation <= _EQUAL**2:
        return None
    bias, acceleration = _NORMAL.inv_cdf(below), float(np.sum(deviations**3)) / (6 * variation**1.5)
    shifted = [bias + _NORMAL.inv_cdf(level) for level in levels]
    if any(acceleration * shift >= 1 for shift in shifted):
        return None
    low, high = (_NORMAL.cdf(bias + shift / (1 - acceleration * shift)) for shift in shifted)
    return low, high


def _drop(means: Floats) -> Floats:
    return means.max(axis=1) - means[:, -1]


def resample(matrix: ArrayLike, bootstrap: Bootstrap, clusters: Sequence[str] | None = None) -> ResampledMeans:
    """Resample the rows of `matrix` (questions x columns) with replacement and take the mean of every column.

    The draws depend on the seed and the number of units only, never on the scores.

    Args:
        matrix: NaN where a column does not apply to a question; a mean is then a ratio of two resampled sums.
        bootstrap: how.
        clusters: one key a row; questions of one key (of one document, say) are then drawn together, so that
            what they have in common widens the intervals. None draws every question by itself.

    Raises:
        RagFtError: there is no question to resample.
    """
    scores = np.asarray(matrix, dtype=np.float64)
    if not len(scores):
        raise RagFtError("there is no question to score; let `rag-ft evaluate RECIPE` finish a batch first.")
    applies = ~np.isnan(scores)
    sums, sizes = _by_unit(np.where(applies, scores, 0.0), clusters), _by_unit(applies.astype(np.float64), clusters)
    # Most columns apply to the same questions, so there are few different denominators.
    different, which = np.unique(sizes, axis=1, return_inverse=True)
    drawn = _drawn_sums(np.hstack([sums, different]), bootstrap)
    width = sums.shape[1]
    draws = _ratio(drawn[:, :width], drawn[:, width:][:, which.ravel()])
    counts = applies.sum(axis=0)
    return ResampledMeans(
        len(scores), counts, _ratio(sums.sum(axis=0), counts.astype(np.float64)), draws, sums, sizes, bootstrap
    )


def _by_unit(values: Floats, clusters: Sequence[str] | None) -> Floats:
    """Add up the rows of each cluster, in order of their keys."""
    if clusters is None:
        return values
    keys, which = np.unique(np.asarray(clusters), return_inverse=True)
    added = np.zeros((len(keys), values.shape[1]))
    np.add.at(added, which, values)
    return added


def _ratio(sums: Floats, sizes: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sizes > 0, sums / sizes, np.nan)


def _drawn_sums(values: Floats, bootstrap: Bootstrap) -> Floats:
    weights = _weights(bootstrap.seed, bootstrap.resamples, len(values))
    chunk = max(1, _CHUNK // len(values))
    starts = range(0, len(weights), chunk)
    return np.concatenate([weights[start : start + chunk].astype(np.float64) @ values for start in starts])


@lru_cache(maxsize=8)  # the modes and groups of a grid ask for the same few sizes again and again
def _weights(seed: int, resamples: int, n: int) -> NDArray[np.uint8]:
    """Return how often each of n units is drawn in each resample (resamples x units); 255 times never happens."""
    rng = np.random.Generator(np.random.PCG64(seed))
    chunk = max(1, _CHUNK // n)
    sizes = [min(chunk, resamples - start) for start in range(0, resamples, chunk)]
    return np.concatenate([_counted(rng, size, n) for size in sizes])


def _counted(rng: np.random.Generator, resamples: int, n: int) -> NDArray[np.uint8]:
    drawn = rng.integers(0, n, size=(resamples, n)) + np.arange(resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.uint8)


def bootstrap_mean(values: ArrayLike, bootstrap: Bootstrap) -> Interval:
    """Return the interval of the mean of `values` (one per question; NaN where there is none)."""
    return resample(np.asarray(values, dtype=np.float64)[:, None], bootstrap).mean(0)


def paired_difference(
    values: ArrayLike, baseline: ArrayLike, bootstrap: Bootstrap, clusters: Sequence[str] | None = None
) -> Interval:
    """Return the interval of mean(values) - mean(baseline), both over the same questions in the same order."""
    return resample(np.column_stack([values, baseline]), bootstrap, clusters).difference(0, 1)


def drop_from_best(matrix: ArrayLike, bootstrap: Bootstrap) -> Drop:
    """Return how far one system falls from its best count to its largest, given scores (questions x counts)."""
    scores = np.asarray(matrix, dtype=np.float64)
    return resample(scores, bootstrap).drop_from_best(list(range(scores.shape[1])))


def mcnemar(wins: int, losses: int) -> float:
    """Return the two-sided p of McNemar's exact test that neither system is the better one.

    Wins and losses are then throws of a fair coin. Questions on which both are right or both wrong say nothing and
    are left out (McNemar 1947, Psychometrika 12; exact by the binomial distribution).
    """
    discordant = wins + losses
    tail = sum(comb(discordant, fewer) for fewer in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**discordant)


def sign_flip(gains: ArrayLike, clusters: Sequence[str], bootstrap: Bootstrap) -> float:
    """Return the two-sided p that neither of two systems is the better one, by flipping whole clusters at random.

    What McNemar's exact test does with single questions: under the null hypothesis the systems may change names, here
    in all questions of a cluster at once. As many random flips as the bootstrap has resamples, the observed one among
    them (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9).

    Args:
        gains: score of one system minus that of the other, one per question.
        clusters: one key per question.
        bootstrap: its resamples and seed.
    """
    sums = _by_unit(np.asarray(gains, dtype=np.float64)[:, None], clusters)[:, 0]
    rng, as_far = np.random.Generator(np.random.PCG64(bootstrap.seed)), 0
    chunk = max(1, _CHUNK // len(sums))
    for first in range(0, bootstrap.resamples, chunk):
        flips = rng.integers(0, 2, (min(chunk, bootstrap.resamples - first), len(sums)), dtype=np.int8)
        as_far += int((np.abs((2 * flips - 1) @ sums) >= abs(sums.sum()) - 1e-9).sum())
    return (1 + as_far) / (1 + bootstrap.resamples)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number, in the order given (Holm 1979, Scand. J. Stat. 6).

    The chance that any of those below 0.05 is a false alarm is then at most 0.05, however the tests depend.
    """
    corrected, largest = [0.0] * len(values), 0.0
    for done, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        largest = max(largest, min(1.0, (len(values) - done) * values[place]))
        corrected[place] = largest
    return corrected


def detectable_difference(n: int, power: float = 0.8, confidence: float = 0.95, discordant: float = 0.25) -> float:
    """Return the smallest difference in accuracy between two systems that n questions show with the given power.

    The d that solves sqrt(n) d = z(1 - alpha / 2) sqrt(s) + z(power) sqrt(s - d^2), the normal approximation of
    McNemar's test (Miettinen 1968, Biometrics 24; Connor 1987, Biometrics 43).

    Args:
        n: questions both systems answer.
        power: chance that the test finds the difference.
        confidence: 1 - alpha of the two-sided test.
        discordant: s, the share of questions that one of the two answers rightly and the other does not. No
            difference is larger than it, so a larger one raises it.

    Returns:
        A difference from 0 to 1; 1 where even that would not be found.
    """
    sure, found = _NORMAL.inv_cdf((1 + confidence) / 2), _NORMAL.inv_cdf(power)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        share = max(discordant, middle)
        enough = sqrt(n) * middle >= sure * sqrt(share) + found * sqrt(share - middle**2)
        low, high = (low, middle) if enough else (middle, high)
    return high
